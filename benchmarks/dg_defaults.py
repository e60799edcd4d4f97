"""Which weight should `derive_dg` take by default, and what does it do? Measured on an embedded model, from paired seeds.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/dg_defaults.py            about 80 s on one free core
    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/dg_defaults.py --write    and puts the table into docs/spec.md

Records the model, derives a spec, and compares every weight, with and without CFG, to the same samples without Detail
Guidance. 8 prompts, one seed each; intervals over prompts. `--seeds 0 1` and `--depths` (also blocks at a quarter, half
and three quarters of the depth) take longer: each block x weight takes 13 s a seed. A weight helps if content stays
(low-pass similarity to the sample without Detail Guidance has a lower bound of at least 0.95) and edge energy rises
(lower bound above 0), with and without CFG.

The control zeroes as many ordinary channels, those nearest to the median magnitude, at the derived block. They are
smaller than massive ones, so it shows that zeroing any channel does not do the same; not that zeroing an equal magnitude
does not. A magnitude-matched control belongs to an analysis of disruption, which is not built yet.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import workbench
from workbench.analysis.locate import locate
from workbench.models import load_pipeline
from workbench.sampling.compare import compare, comparison_figure
from workbench.sampling.result import SampleResult
from workbench.sampling.sampler import sample
from workbench.steering.derive import derive_dg
from workbench.steering.spec import DetailGuidanceSpec

PROMPTS = ["red apple", "dog face", "blue heart", "pizza", "grinning face", "rocket", "sunflower", "penguin"]
KEEPS_CONTENT = 0.95
SHOWN = ["edge_energy", "high_frequency_share", "contrast", "low_pass_similarity"]
PAGE = Path(__file__).resolve().parents[1] / "docs" / "spec.md"
BEGIN, END = "<!-- dg defaults: begin -->", "<!-- dg defaults: end -->"


def main() -> None:
    options = arguments()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    pipe = load_pipeline(options.model)
    start = time.monotonic()
    base = sample(pipe, modes=("plain", "cfg"), **call(options))
    with tempfile.TemporaryDirectory() as folder:
        store = workbench.record(
            pipe, prompts=PROMPTS, seeds=options.seeds, steps=options.steps, guidance_scale=options.scale,
            batch_size=8, out=Path(folder) / "recording.zarr", progress=False,
        )  # fmt: skip
        recording = workbench.open(store).load()
    spec = derive_dg(recording, criterion=options.criterion, **({"k": options.k} if options.k else {}))
    found = locate(recording, criterion=options.criterion)
    ordinary = ordinary_channels(found, spec)
    steered = [
        spec.replace(layer=layer, weight=w) for layer in layers(spec, recording, options) for w in options.weights
    ]
    steered += [spec.replace(channels=ordinary, weight=weight) for weight in options.weights]
    rows = []
    for one in steered:
        both = beside(pipe, base, one, options)
        comparison = compare(both)
        differences = comparison.differences[comparison.differences["mode"] != "cfg"]
        which = "massive" if one.channels == spec.channels else "ordinary"
        rows += [{"channels": which, "layer": one.layer, "weight": one.weight, **row}
                 for row in differences.to_dict("records")]  # fmt: skip
        if one == steered[0] or one == spec:
            figure = comparison_figure(both, samples=range(0, len(both.prompts), len(options.seeds)))
            figure.savefig(out / "grid.png", dpi=150)
            comparison.save(out)
    table = pd.DataFrame(rows)
    table.to_csv(out / "sweep.csv", index=False, float_format="%.5g")
    text = "\n\n".join([setting(spec, ordinary, options), summary(table), verdict(table, spec.layer)])
    print(f"{text}\n\n{time.monotonic() - start:.0f} s")
    if options.write:
        write(text, BEGIN, END)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-image")
    parser.add_argument("--out", default="benchmarks/out/dg_defaults")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--weights", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--depths", action="store_true", help="also a quarter, half and three quarters of the depth")
    parser.add_argument("--write", action="store_true", help="put the table into docs/spec.md")
    parser.add_argument("--criterion", default="workbench")
    parser.add_argument("--k", type=int)
    return parser.parse_args()


def call(options: argparse.Namespace) -> dict[str, Any]:
    return {"prompts": PROMPTS, "seeds": options.seeds, "steps": options.steps, "guidance_scale": options.scale,
            "batch_size": 8, "progress": False}  # fmt: skip


def layers(spec: DetailGuidanceSpec, recording: Any, options: argparse.Namespace) -> list[str]:
    """The derived block, and if asked for a quarter, half and three quarters of the depth."""
    blocks = [str(layer) for layer in recording["layer"].values if layer != "input"]
    more = [blocks[len(blocks) * i // 4] for i in (1, 2, 3)] if options.depths else []
    return list(dict.fromkeys([spec.layer, *more]))


def ordinary_channels(found: Any, spec: DetailGuidanceSpec) -> list[int]:
    """As many channels as the spec has, those whose magnitude is nearest to the median where the spec acts."""
    layers = [str(layer) for layer in found["layer"].values]
    ratio = found["ratio_to_median"].isel(layer=layers.index(spec.layer) - 1)
    nearest = abs(ratio - 1).argsort().values[: len(spec.channels)]
    return sorted(int(found["channel"][i]) for i in nearest)


def beside(pipe: Any, base: SampleResult, spec: DetailGuidanceSpec, options: argparse.Namespace) -> SampleResult:
    """The samples without Detail Guidance and the same with it, in one result."""
    steered = sample(pipe, modes=("dg", "cfg+dg"), spec=spec, **call(options))
    return SampleResult(
        images=np.concatenate([base.images, steered.images]), latents=np.concatenate([base.latents, steered.latents]),
        modes=base.modes + steered.modes, prompts=base.prompts, seeds=base.seeds, settings=steered.settings,
    )  # fmt: skip


def verdict(table: pd.DataFrame, layer: str) -> str:
    """Which weights at the derived block keep the content, and which of those add detail."""
    here = table[(table.layer == layer) & (table.channels == "massive")]
    low = here.pivot_table(index="weight", columns="measure", values="low", aggfunc="min")  # the worse of the modes
    # The bound of `low_pass_similarity` is that of the difference to 1, the similarity of equal images.
    keeps = low.index[1 + low["low_pass_similarity"] >= KEEPS_CONTENT].tolist()
    helps = [weight for weight in keeps if low.loc[weight, "edge_energy"] > 0]
    said = (
        f"By these intervals, which are not corrected for their number, Detail Guidance at `{layer}` keeps the content (lower "
        f"bound of the similarity at least {KEEPS_CONTENT}) at w = {listed(keeps)}; of these, it raises edge energy both "
        f"with and without CFG at w = {listed(helps)}."
    )
    return said if helps else f"{said} So **no added detail is shown**."


def listed(weights: list[float]) -> str:
    return ", ".join(f"{weight:g}" for weight in weights) or "(none)"


def setting(spec: DetailGuidanceSpec, ordinary: list[int], options: argparse.Namespace) -> str:
    """What was measured, in words."""
    n, seeds = len(PROMPTS), len(options.seeds)
    return (
        f"Measured by `benchmarks/dg_defaults.py` on {options.model} (weights {spec.model.weight_hash}): {n} prompts × "
        f"{seeds} seed{'s' if seeds > 1 else ''}, {options.steps} steps, s = {options.scale:g}. Massive: "
        f"{named(spec.channels)} before `{spec.layer}`; control: {named(ordinary)}, as ordinary as there are (nearest to "
        f"the median magnitude, hence smaller; not matched in magnitude). Mean paired differences to the same sample "
        f"without Detail Guidance, whose mean is in brackets after the mode, with 95 % intervals over {n} prompts."
    )


def named(channels: Any) -> str:
    return f"channel{'s' if len(channels) > 1 else ''} {', '.join(map(str, channels))}"


def summary(table: pd.DataFrame) -> str:
    """Differences with their intervals, as Markdown."""
    lines = ["| channels | block | mode | w | " + " | ".join(m.replace("_", " ") for m in SHOWN) + " |"]
    lines.append("|" + "---|" * (4 + len(SHOWN)))
    for (channels, layer, mode, weight), rows in table.groupby(["channels", "layer", "mode", "weight"], sort=False):
        at = rows.set_index("measure")
        base = "; ".join(f"{at.loc[m, 'mean_against']:.3g}" for m in SHOWN[:-1])
        cells = [f"{r.difference:+.4f} ({r.low:+.4f}, {r.high:+.4f})" for r in at.loc[SHOWN[:-1]].itertuples()]
        # Of the two images with each other: 1 for equal ones.
        r = at.loc[SHOWN[-1]]
        cells.append(f"{1 + r['difference']:.3f} ({1 + r['low']:.3f}, {1 + r['high']:.3f})")
        lines.append(f"| {channels} | {layer.rsplit('.', 1)[1]} | {mode} ({base}) | {weight:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(text: str, begin: str, end: str) -> None:
    """Put the text between two markers of docs/spec.md."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
