"""What does Detail Guidance do at its defaults, and are others better? The sweep on an embedded model, as `docs/spec.md` has it.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/dg_defaults.py            about 8 minutes on one free core
    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/dg_defaults.py --write    and puts the table into docs/spec.md

Records the model, derives a spec, and sweeps weights with massive and with matched ordinary channels (random ones that hold as
much), with and without CFG, from the same seeds. Fewer than 58 prompts can't show that the content is kept. What is
generated is kept in `--out`: the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import xarray as xr

import workbench
from workbench.analysis.sweep import sweep as analyse
from workbench.analysis.sweep import table
from workbench.figures import registry, style
from workbench.models import load_pipeline
from workbench.sampling.options import study
from workbench.sampling.sweep import sweep
from workbench.steering.derive import derive_dg

PROMPTS = ["red apple", "dog face", "blue heart", "pizza", "grinning face", "rocket", "sunflower", "penguin"]
SHOWN = {
    "edge_energy": "edge energy",
    "band_power_4": "ln power > 1/4 cycles/px",
    "own_spectral_distance": "distance to own",
    "low_pass_similarity": "low-pass similarity",
    "recognised": "recognised",
}
PAGE = Path(__file__).resolve().parents[1] / "docs" / "spec.md"
BEGIN, END = "<!-- dg defaults: begin -->", "<!-- dg defaults: end -->"


def main() -> None:
    options = arguments()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    pipe = load_pipeline(options.model)
    store = out / "recording.zarr"
    if not store.exists():
        workbench.record(pipe, prompts=PROMPTS, seeds=[0], steps=options.steps, guidance_scale=options.scale,
                         batch_size=8, out=store, progress=False)  # fmt: skip
    recording = workbench.open(store).load()
    spec = derive_dg(recording)
    over = {"layer": options.layers or [spec.layer], "weight": options.weights, "channels": ["massive", "matched"]}
    measured = sweep(
        spec, pipe, over=over, prompts=study(options.model)[: options.prompts], seeds=options.seeds, steps=options.steps,
        guidance_scale=options.scale, out=out / "sweep", recording=recording, model_name=options.model, progress=False,
        yes=True,
    )  # fmt: skip
    result = analyse(measured)
    rows = table(result, list(SHOWN))
    rows.to_csv(out / "sweep.csv", index=False, float_format="%.5g")
    figure = registry.load("sweep")
    style.save(figure.draw(result), out, "sweep", data=figure.data(result))
    text = "\n\n".join([setting(spec, result, options), summary(rows), verdict(result)])
    print(f"{text}\n\n{time.monotonic() - start:.0f} s")
    if options.write:
        write(text, BEGIN, END)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-image")
    parser.add_argument("--out", default="benchmarks/out/dg_defaults")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("--prompts", type=int, default=64, help="how many of the model's study prompts")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--weights", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--layers", nargs="+", help="blocks, or auto; default: the derived one")
    parser.add_argument("--write", action="store_true", help="put the table into docs/spec.md")
    return parser.parse_args()


def setting(spec: workbench.steering.spec.DetailGuidanceSpec, result: xr.Dataset, options: argparse.Namespace) -> str:
    """What was measured, in words."""
    channels = ", ".join(map(str, spec.channels))
    matched = result["n_channels"].values[result["channels"].values == "matched"]
    return (
        f"Measured by `benchmarks/dg_defaults.py` on {options.model} (weights {spec.model.weight_hash}): "
        f"{result.attrs['replication']}, {options.steps} steps, s = {options.scale:g}. Massive: channels {channels} before "
        f"`{spec.layer}`; matched: {matched[0]:.0f} random ordinary channels that hold as much. Mean paired differences to the same "
        "sample without Detail Guidance, whose mean is in brackets after the mode, with 95 % intervals over prompts; bold: "
        "p < 0.05 by sign flips, corrected over all rows of a column. Distance to own: root mean square distance of the "
        "picture's ln power in octave bands to that of the prompt's own training picture; lower is nearer."
    )


def summary(rows: pd.DataFrame) -> str:
    """Differences with their intervals, as Markdown."""
    shown = {name: label for name, label in SHOWN.items() if name in set(rows["measure"])}
    lines = ["| channels | block | mode | w | " + " | ".join(shown.values()) + " |", "|" + "---|" * (4 + len(shown))]
    means = rows.set_index(["condition", "measure"])["mean"]
    steered = rows[rows["role"] != "baseline"]
    for name, part in steered.groupby("condition", sort=False):
        first, at = part.iloc[0], part.set_index("measure")
        base = "; ".join(f"{means[first['baseline'], m]:.3g}" for m in shown if m != "low_pass_similarity")
        cells = [cell(at.loc[m], shift=m == "low_pass_similarity") for m in shown]
        block = str(first["layer"]).rsplit(".", 1)[1]
        lines.append(
            f"| {first['channels']} | {block} | {first['mode']} ({base}) | {first['weight']:g} | {' | '.join(cells)} |"
        )
        assert name
    return "\n".join(lines)


def cell(row: pd.Series, *, shift: bool) -> str:
    """One difference; a similarity as itself, 1 for equal images."""
    if shift:
        return f"{row['mean']:.3f} ({row['mean_low']:.3f}, {row['mean_high']:.3f})"
    value = f"{row['effect']:+.4f}".replace("-", "−")
    known = f"**{value}**" if row["p_corrected"] < 0.05 else value
    return f"{known} ({row['effect_low']:+.4f}, {row['effect_high']:+.4f})".replace("-", "−")


def verdict(result: xr.Dataset) -> str:
    """What the rule says."""
    return f"Rule: {result.attrs['rule']}\n\nVerdict: **{result.attrs['verdict']}**. {result.attrs['verdict_reason']}"


def write(text: str, begin: str, end: str) -> None:
    """Put the text between two markers of docs/spec.md."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
