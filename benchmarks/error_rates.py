"""Measure the error rates that `docs/methods.md` quotes: false alarms, power, coverage.

    python -m benchmarks.error_rates            print the tables
    python -m benchmarks.error_rates --write    and put them into docs/methods.md, between its markers
    python -m benchmarks.error_rates --only coverage spread --write      these tables only

Seeds are fixed; on one machine the numbers come out the same each time. About six minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.special import ndtri

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


def found(recording: xr.Dataset) -> dict[str, float]:
    """Whether each criterion that is a test finds any channel in the model; any at any visit; the largest ratio."""
    visits = Visits(recording, "cond")
    ratio_LC = visits.ratio_to_median_SLTC[:, visits.blocks].mean(axis=(0, 2))
    out: dict[str, float] = {"largest": float(ratio_LC.max())}
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
        rng = np.random.default_rng([seed, round(100 * spread)])
        scale = np.exp(spread * rng.standard_normal(256))
        yield to_dataset((rng.standard_normal((5, 1, 4, 2, 64, 256)) * scale).astype(np.float32))


def outlier_tokens(count: int, tokens: int) -> Iterator[xr.Dataset]:
    """Normal states; in one channel, `tokens` of 64 tokens are 500 times an ordinary value, everywhere."""
    for seed in range(count):
        rng = np.random.default_rng([seed, tokens])
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
        "| null | models | " + " | ".join([*TESTS, "workbench, any single visit", "largest ratio"]) + " |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, make in nulls.items():
        results = [found(recording) for recording in make()]
        counts = [sum(r[key] for r in results) for key in [*TESTS, "any visit"]]
        largest = [r["largest"] for r in results]
        cells = [*map(str, counts), f"{min(largest):.1f} to {max(largest):.1f}"]
        rows.append(f"| {name} | {len(results)} | " + " | ".join(cells) + " |")
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
    for n in (5, 8, 16):
        for slope in (0.0, 0.1, -0.1):
            called = drifting(n, slope, 10 * scale)
            counts = [called.count(direction) for direction in (1, 0, -1)]
            cells = " | ".join(map(str, counts))
            rows.append(f"| slopes {slope:+.1f} ± 0.5, {n} prompts, synthetic | {len(called)} | {cells} | – |")
    return rows


def drifting(prompts: int, slope: float, trials: int) -> list[int]:
    """Directions called where each prompt has its own slope of ln magnitude on sigma, normal around `slope`, sd 0.5.

    At a mean slope of 0 or of the smallest slope that counts, every direction called is false. Each channel of
    one recording is a trial: channels do not enter each other's slopes.
    """
    rng = np.random.default_rng([prompts, round(10 * slope) + 1])
    sigma = np.linspace(1.0, 0.2, 5)
    h = rng.standard_normal((prompts, 1, 2, len(sigma), 4, trials))
    own = slope + 0.5 * rng.standard_normal((prompts, 1, 1, trials))
    h[:, 0, 1] = 20.0 * np.exp(own * sigma[:, None, None])
    recording = to_dataset(h.astype(np.float32), sigmas=sigma, ranks=1)
    result = modulation(recording, channels=list(range(trials)))
    return [int(d) for d in result["direction"].isel(layer=-1).values]


def spread_rule(draws: int = 20000) -> list[str]:
    """Table of how often some of C channels with log-normal magnitudes passes `workbench` at one visit."""
    spreads = (0.4, 0.6, 0.8, 1.0)
    rows = ["| channels | stands out of the spread | " + " | ".join(f"and ratio, ln-sd {s}" for s in spreads) + " |"]
    rows.append("|---:|---:|" + "---:|" * len(spreads))
    defaults = CRITERIA["workbench"].parameters
    for channels in (64, 256, 1536):
        rng = np.random.default_rng(channels)
        out, both = 0, np.zeros(len(spreads), dtype=int)
        for _ in range(draws // 1000):
            z = rng.standard_normal((1000, channels))  # ln magnitude over its standard deviation
            away = z - np.median(z, axis=1, keepdims=True)
            spread = 1.4826 * np.median(np.abs(away), axis=1, keepdims=True)
            apart = away >= ndtri(1.0 - defaults["outlier_level"] / channels) * spread
            out += int(apart.any(axis=1).sum())
            for i, s in enumerate(spreads):
                both[i] += int((apart & (np.exp(s * away) >= defaults["ratio"])).any(axis=1).sum())
        rows.append(f"| {channels} | {out / draws:.2%} | " + " | ".join(f"{b / draws:.2%}" for b in both) + " |")
    return rows


def clustered(trials: int = 4000) -> list[str]:
    """Table of how often 95 % intervals contain the mean, where a part of the variance is between prompts."""
    rows = ["| prompts × seeds | share of variance between prompts | prompts resampled | samples resampled |"]
    rows.append("|---|---:|---:|---:|")
    for prompts, seeds in ((5, 2), (8, 2), (8, 4), (16, 2)):
        for share in (0.0, 0.5, 0.8, 0.95):
            rng = np.random.default_rng([prompts, seeds, round(100 * share)])
            between = np.sqrt(share) * rng.standard_normal((prompts, 1, trials))
            values = between + np.sqrt(1 - share) * rng.standard_normal((prompts, seeds, trials))
            flat = values.reshape(prompts * seeds, trials)
            names = [str(p) for p in range(prompts) for _ in range(seeds)]
            cells = []
            for used in (inference.by_prompt(flat, names)[0], flat):
                interval = inference.bootstrap_mean(used, resamples=4000)
                cells.append(np.mean((interval.low <= 0.0) & (interval.high >= 0.0)))
            rows.append(f"| {prompts} × {seeds} | {share:g} | {cells[0]:.3f} | {cells[1]:.3f} |")
    return rows


def coverage(trials: int = 4000) -> list[str]:
    """Table of how often 95 % intervals of a mean contain it."""
    rows = ["| prompts | normal, expanded | normal, percentile | log-normal, expanded | log-normal, percentile |"]
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


TABLES: dict[str, tuple[str, Callable[[int], list[str]]]] = {
    "false": ("False alarms: null models in which something is found", false_alarms),
    "spread": ("One visit of log-normal channels: how often some channel passes", lambda _: spread_rule()),
    "power": ("Power: `locate` on a planted constant pair", power),
    "directions": ("Direction and writer: `modulation` on planted models", directions),
    "coverage": ("Coverage of 95 % bootstrap intervals of a mean over prompts", lambda _: coverage()),
    "clustered": ("Coverage with seeds within prompts, normal, expanded", lambda _: clustered()),
}


def write(measured: dict[str, str]) -> None:
    """Put these tables into the page; the others stay as they are."""
    page = ROOT / "docs" / "methods.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    inside, after = rest.split(END)
    there = {part.split("**\n\n", 1)[0]: part for part in inside.strip().split("\n\n**")}
    there = {title.removeprefix("**"): part.split("**\n\n", 1)[1] for title, part in there.items()}
    texts = [f"**{t}**\n\n{(there | measured)[t]}" for t, _ in TABLES.values() if t in measured | there]
    page.write_text(before + BEGIN + "\n\n" + "\n\n".join(texts) + "\n\n" + END + after, encoding="utf-8")


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/methods.md")
    parser.add_argument("--scale", type=int, default=100, help="models per null (default 100)")
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES), help="which tables")
    arguments = parser.parse_args()
    measured = {}
    for name in arguments.only:
        title, make = TABLES[name]
        measured[title] = "\n".join(make(arguments.scale))
        print(f"**{title}**\n\n{measured[title]}\n", flush=True)
    if arguments.write:
        write(measured)


if __name__ == "__main__":
    main()
