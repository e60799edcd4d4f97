"""Which block and weight should `derive_dg` take by default? Measured on an embedded model, from paired seeds.

    python benchmarks/dg_defaults.py [--model mini-image] [--out benchmarks/dg_defaults]

Records the model, derives a spec, and sweeps block × weight, each with and without CFG, against the same seeds without
Detail Guidance. A control zeroes as many ordinary channels (nearest to the median magnitude) at the derived block. A
weight helps if content stays (low-pass similarity to the same sample without Detail Guidance has a lower bound of at
least 0.95) and edge energy rises (lower bound above 0), with and without CFG.
"""

from __future__ import annotations

import argparse
import tempfile
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


def main() -> None:
    options = arguments()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    pipe = load_pipeline(options.model)
    base = sample(pipe, modes=("plain", "cfg"), **call(options))
    with tempfile.TemporaryDirectory() as folder:
        store = workbench.record(
            pipe, prompts=PROMPTS, seeds=options.seeds, steps=options.steps, guidance_scale=options.scale,
            batch_size=8, out=Path(folder) / "recording.zarr", progress=False,
        )  # fmt: skip
        recording = workbench.open(store).load()
    spec = derive_dg(recording, criterion=options.criterion, **({"k": options.k} if options.k else {}))
    found = locate(recording, criterion=options.criterion)
    print(f"derived: {spec.layer}, channels {list(spec.channels)}")
    rows = []
    for layer in options.layers or default_layers(spec, recording):
        for weight in options.weights:
            rows += measured(pipe, base, spec.replace(layer=layer, weight=weight), options, "massive")
    ordinary = ordinary_channels(found, spec)
    for weight in options.weights:
        rows += measured(pipe, base, spec.replace(channels=ordinary, weight=weight), options, "ordinary")
    table = pd.DataFrame(rows)
    table.to_csv(out / "sweep.csv", index=False, float_format="%.5g")
    print(summary(table))
    print(verdict(table, spec.layer))
    shown = sample(pipe, modes=("plain", "cfg", "dg", "cfg+dg"), spec=spec, **call(options))
    figure = comparison_figure(shown, samples=range(0, len(shown.prompts), len(options.seeds)))
    figure.savefig(out / "grid.png", dpi=150)
    compare(shown).save(out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-image")
    parser.add_argument("--out", default="benchmarks/dg_defaults")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--scale", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.25, 0.5, 1.0, 2.0, 4.0])
    parser.add_argument("--layers", nargs="+")
    parser.add_argument("--criterion", default="workbench")
    parser.add_argument("--k", type=int)
    return parser.parse_args()


def call(options: argparse.Namespace) -> dict[str, Any]:
    return {"prompts": PROMPTS, "seeds": options.seeds, "steps": options.steps, "guidance_scale": options.scale,
            "batch_size": 8, "progress": False}  # fmt: skip


def default_layers(spec: DetailGuidanceSpec, recording: Any) -> list[str]:
    """A quarter, half and three quarters of the depth, and the derived block."""
    blocks = [str(layer) for layer in recording["layer"].values if layer != "input"]
    return sorted({blocks[len(blocks) * i // 4] for i in (1, 2, 3)} | {spec.layer})


def ordinary_channels(found: Any, spec: DetailGuidanceSpec) -> list[int]:
    """As many channels as the spec has, those whose magnitude is nearest to the median where the spec acts."""
    layers = [str(layer) for layer in found["layer"].values]
    ratio = found["ratio_to_median"].isel(layer=layers.index(spec.layer) - 1)
    nearest = abs(ratio - 1).argsort().values[: len(spec.channels)]
    return sorted(int(found["channel"][i]) for i in nearest)


def measured(
    pipe: Any, base: SampleResult, spec: DetailGuidanceSpec, options: argparse.Namespace, channels: str
) -> list[dict[str, Any]]:
    """Differences to the same samples without Detail Guidance, one row a measure and mode."""
    steered = sample(pipe, modes=("dg", "cfg+dg"), spec=spec, **call(options))
    both = SampleResult(
        images=np.concatenate([base.images, steered.images]), latents=np.concatenate([base.latents, steered.latents]),
        modes=base.modes + steered.modes, prompts=base.prompts, seeds=base.seeds, settings=steered.settings,
    )  # fmt: skip
    rows = compare(both).differences
    rows = rows[rows["mode"] != "cfg"]
    return [
        {"channels": channels, "layer": spec.layer, "weight": spec.weight, **row} for row in rows.to_dict("records")
    ]


def verdict(table: pd.DataFrame, layer: str) -> str:
    """Which weights at the derived block keep the content, and which of those add detail."""
    here = table[(table.layer == layer) & (table.channels == "massive")]
    low = here.pivot_table(index="weight", columns="measure", values="low", aggfunc="min")  # the worse of the modes
    # The bound of `low_pass_similarity` is that of the difference to 1, the similarity of equal images.
    keeps = low.index[1 + low["low_pass_similarity"] >= KEEPS_CONTENT].tolist()
    helps = [weight for weight in keeps if low.loc[weight, "edge_energy"] > 0]
    return f"at {layer}, content stays at w = {keeps or 'none'}; of these, detail rises at w = {helps or 'none'}"


def summary(table: pd.DataFrame) -> str:
    """Means of the measures that decide, as Markdown."""
    similar = table["measure"] == "low_pass_similarity"
    wide = table.assign(value=np.where(similar, table["mean"], table["difference"])).pivot_table(
        index=["channels", "layer", "mode", "weight"], columns="measure", values="value", sort=False
    )
    rows = wide.reset_index().round(4)
    lines = ["| " + " | ".join(map(str, rows.columns)) + " |", "|" + "---|" * len(rows.columns)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows.to_numpy()])


if __name__ == "__main__":
    main()
