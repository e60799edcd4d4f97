"""Measure the error rates that `docs/methods.md` quotes: false alarms, power, coverage.

    python -m benchmarks.error_rates            print the tables
    python -m benchmarks.error_rates --write    and put them into docs/methods.md, between its markers

Seeds are fixed; on one machine the numbers come out the same each time. About five minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import xarray as xr

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the planted models live with the tests

from tests.planted import PLANT, hook_record, planted_pipeline  # noqa: E402
from tests.reduce_reference import to_dataset  # noqa: E402
from workbench.analysis import inference  # noqa: E402
from workbench.analysis.criteria import CRITERIA, recurrence  # noqa: E402
from workbench.analysis.locate import locate, located_channels  # noqa: E402
from workbench.analysis.modulation import modulation  # noqa: E402
from workbench.analysis.visits import Visits  # noqa: E402

PROMPTS = ["red apple", "dog face", "blue heart", "pizza", "rocket"]
TESTS = [name for name, criterion in CRITERIA.items() if not criterion.ranking]
BEGIN, END = "<!-- error rates: begin -->", "<!-- error rates: end -->"


def found(recording: xr.Dataset) -> dict[str, bool]:
    """Whether each criterion that is a test finds any channel in the model; and any at any visit, by `workbench`."""
    visits = Visits(recording, "cond")
    out = {}
    for name in TESTS:
        mask = CRITERIA[name].rule(visits)
        out[name] = bool(recurrence(mask, visits.blocks, CRITERIA[name].parameters).massive_channel_C.any())
        if name == "workbench":
            out["any visit"] = bool(mask[:, visits.blocks].any())
    return out


def random_models(count: int, *, width: int = 64, layers: int = 5, gates: float = 1.0) -> Iterator[xr.Dataset]:
    """Recordings of randomly initialised SD3 pipelines; `gates` multiplies their AdaLN projections."""
    for seed in range(count):
        pipeline = planted_pipeline("random", 1000 + seed, width=width, layers=layers)
        for block in pipeline.transformer.transformer_blocks:
            block.norm1.linear.weight.data.mul_(gates)
        yield hook_record(pipeline, prompts=PROMPTS, seeds=[seed], steps=3)


def spread_channels(count: int, spread: float) -> Iterator[xr.Dataset]:
    """Normal states whose channels have log-normal scales, the same at every layer, step and sample: the worst case."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        scale = np.exp(spread * rng.standard_normal(256))
        yield to_dataset((rng.standard_normal((5, 1, 4, 2, 64, 256)) * scale).astype(np.float32))


def outlier_tokens(count: int, tokens: int) -> Iterator[xr.Dataset]:
    """Normal states; in one channel, `tokens` of 64 tokens are 500 times an ordinary value, everywhere."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        h = rng.standard_normal((5, 1, 4, 2, 64, 256))
        h[..., :tokens, 7] = 500.0
        yield to_dataset(h.astype(np.float32))


def false_alarms(scale: int) -> list[str]:
    """Table of the share of null models in which something is found."""
    nulls: dict[str, Callable[[], Iterator[xr.Dataset]]] = {
        "SD3, random, 64 channels × 5 blocks": lambda: random_models(2 * scale),
        "SD3, random, 256 channels × 8 blocks": lambda: random_models(scale // 4, width=256, layers=8),
        "SD3, random, AdaLN weights × 4": lambda: random_models(scale, gates=4.0),
        **{f"channels spread, ln-sd {s}": lambda s=s: spread_channels(scale, s) for s in (0.2, 0.4, 0.6, 0.8, 1.0)},
        **{f"{k} outlier tokens of 64": lambda k=k: outlier_tokens(scale, k) for k in (1, 4, 16)},
    }
    rows = [
        "| null | models | " + " | ".join([*TESTS, "workbench, any single visit"]) + " |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, make in nulls.items():
        results = [found(recording) for recording in make()]
        counts = [sum(r[key] for r in results) for key in [*TESTS, "any visit"]]
        rows.append(f"| {name} | {len(results)} | " + " | ".join(str(c) for c in counts) + " |")
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def power(scale: int) -> list[str]:
    """Table of how often exactly the two planted channels are found, against how large they are."""
    rows = [
        "| planted size | models | ratio to median, mean | exactly the planted | one or both missed | others found |"
    ]
    rows.append("|---:|---:|---:|---:|---:|---:|")
    wanted = set(PLANT.channels)
    for magnitude in (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 8.0):
        exact, missed, others, ratios = 0, 0, 0, []
        count = scale // 4
        for seed in range(count):
            recording = hook_record(
                planted_pipeline("constant", seed, magnitude=magnitude), prompts=PROMPTS, seeds=[seed], steps=3
            )
            result = locate(recording, resamples=1)
            got = set(located_channels(result))
            exact, missed, others = exact + (got == wanted), missed + bool(wanted - got), others + bool(got - wanted)
            ratios.append(result["ratio_to_median"].sel(channel=list(wanted)).isel(layer=-1).mean())
        rows.append(f"| {magnitude:g} | {count} | {np.mean(ratios):.1f} | {exact} | {missed} | {others} |")
    return rows


def directions(scale: int) -> list[str]:
    """Table of how often a direction along the trajectory is called, per planted kind, in the last block."""
    rows = ["| planted | models × channels | grows with noise | neither | grows as noise falls | writer right |"]
    rows.append("|---|---:|---:|---:|---:|---:|")
    for kind in ("constant", "gate", "gate_falling"):
        called, right = [], 0
        for seed in range(scale // 4):
            recording = hook_record(planted_pipeline(kind, seed), prompts=PROMPTS, seeds=[seed], steps=5)
            result = modulation(recording, channels=list(PLANT.channels), resamples=500)
            called += result["direction"].isel(layer=-1).values.tolist()
            right += sum(str(w) == f"transformer_blocks.{PLANT.block}" for w in result["writer"].values)
        counts = [called.count(direction) for direction in (1, 0, -1)]
        rows.append(f"| {kind} | {len(called)} | " + " | ".join(map(str, counts)) + f" | {right} |")
    return rows


def coverage(trials: int = 4000) -> list[str]:
    """Table of how often 95 % intervals of a mean contain it."""
    rows = ["| samples | normal, expanded | normal, percentile | log-normal, expanded | log-normal, percentile |"]
    rows.append("|---:|---:|---:|---:|---:|")
    for n in (5, 8, 12, 16, 32, 64):
        cells = []
        for draw, truth in (
            (lambda g, size: g.standard_normal(size), 0.0),
            (lambda g, size: np.exp(0.7 * g.standard_normal(size)), float(np.exp(0.7**2 / 2))),
        ):
            values = draw(np.random.default_rng(n), (n, trials))
            for method in ("expanded", "percentile"):
                interval = inference.bootstrap_mean(values, resamples=4000, method=method)
                cells.append(np.mean((interval.low <= truth) & (truth <= interval.high)))
        rows.append(f"| {n} | " + " | ".join(f"{c:.3f}" for c in cells) + " |")
    return rows


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/methods.md")
    parser.add_argument("--scale", type=int, default=100, help="models per null (default 100)")
    arguments = parser.parse_args()
    tables = {
        "False alarms: null models in which something is found": false_alarms(arguments.scale),
        "Power: `locate` on a planted constant pair": power(arguments.scale),
        "Direction and writer: `modulation` on planted models": directions(arguments.scale),
        "Coverage of 95 % bootstrap intervals of a mean over samples": coverage(),
    }
    text = "\n\n".join(f"**{title}**\n\n" + "\n".join(rows) for title, rows in tables.items())
    print(text)
    if arguments.write:
        page = ROOT / "docs" / "methods.md"
        before, rest = page.read_text().split(BEGIN)
        page.write_text(before + BEGIN + "\n\n" + text + "\n\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
