"""What stands in the report, section by section, as plain data."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from workbench.analysis.locate import table as located_table


@dataclass
class Section:
    """A heading with text, tables, figures, moving pictures and texts to unfold."""

    id: str
    title: str
    text: str
    tables: list[dict[str, Any]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    details: list[dict[str, str]] = field(default_factory=list)
    previews: list[dict[str, Any]] = field(default_factory=list)


Drawn = dict[str, dict[str, Any]]

#: Figures of what was generated.
PICTURES = ("images", "frame_strip")

#: What an action of a spec does, in words.
ACTIONS = {
    "zero": "set to zero",
    "scale": "scaled down by the retention",
    "mean": "set to their mean over tokens",
}


def model_name(recording: xr.Dataset) -> str:
    """What the model was called when it was recorded."""
    return str(recording.attrs["model_name"])


def title(recording: xr.Dataset) -> str:
    """Heading of the report."""
    return f"Massive activations in {model_name(recording)}"


def completed(recording: xr.Dataset) -> int:
    """Samples that have every unit."""
    return int(((recording.unit_checksum != 0).all(("branch", "layer", "timestep"))).sum())


def lead(recording: xr.Dataset) -> str:
    """What was recorded, in one sentence."""
    settings = recording.attrs["settings"]
    seeds = len(settings["seeds"])
    kept = recording.sizes["timestep"]
    # Of an experiment the timesteps are cells, which are no part of a trajectory.
    some = "" if kept == settings["steps"] or recording.attrs.get("experiment") else f" ({kept} of them recorded)"
    return (
        f"{completed(recording)} samples ({len(settings['prompts'])} prompts × {seeds} seed{'s' if seeds > 1 else ''}), "
        f"{settings['steps']} denoising steps{some}, guidance scale {settings['guidance_scale']:g}, "
        f"{recording.sizes['layer'] - 1} blocks of {recording.sizes['channel']} channels, "
        f"{_tokens(recording)}."
    )


def _tokens(recording: xr.Dataset) -> str:
    frames = int(recording["frame"].max()) + 1 if "frame" in recording.coords else 1
    tokens = recording.sizes["token"]
    return f"{tokens} video tokens in {frames} latent frames" if frames > 1 else f"{tokens} image tokens"


def the_recording(recording: xr.Dataset, drawn: Drawn, previews: Sequence[dict[str, Any]] = ()) -> Section:
    """What was generated; of videos `previews` move."""
    return Section(
        "recording",
        "The recording",
        "A sample is one prompt with one seed. Intervals and verdicts are over prompts: the samples of a prompt are averaged "
        "first. With one prompt only they are over its seeds, and hold for this prompt. "
        f"Tier: {recording.attrs['tier']}. dtype: {recording.attrs['dtype']}.",
        figures=[figure for name, figure in drawn.items() if name in PICTURES],
        previews=list(previews),
    )


def states(drawn: Drawn) -> Section:
    """The hidden states themselves."""
    figures = [f for name, f in drawn.items() if f["needs"] == "recording" and name not in PICTURES]
    return Section(
        "states", "Hidden states", "The output of the blocks on the residual stream, image tokens.", [], figures
    )


def channels(found: xr.Dataset, drawn: Drawn) -> Section:
    """Which channels are massive."""
    rows = located_table(found)
    tables = (
        [
            {
                "caption": f"Channels located by the criterion “{found.attrs['criterion']}”, strongest first; n = "
                f"{found.attrs['replication']}. Ratio: mean |h| over that of the median channel, at the peak layer, "
                f"with its interval over {found.attrs['replicate']}s. Largest on: share of tokens whose largest channel it is, "
                "there. The full table is in numbers.json.",
                "head": [
                    "channel",
                    "sign",
                    "blocks",
                    "peak layer",
                    "mean |h|",
                    "× median",
                    "× mean",
                    "largest on",
                    "also by",
                ],
                "rows": [
                    [
                        row["channel"],
                        row["sign"],
                        row["layers"],
                        row["peak_layer"],
                        row["magnitude"],
                        f"{row['ratio_to_median']:.1f} [{row['ratio_low']:.1f}, {row['ratio_high']:.1f}]",
                        row["ratio_to_mean"],
                        f"{row['dominance']:.0%}",
                        row["also_by"],
                    ]
                    for row in rows
                ],
            }
        ]
        if rows
        else []
    )
    return Section(
        "channels",
        "Which channels",
        found.attrs["verdict_reason"],
        tables,
        [f for f in drawn.values() if f["needs"] == "locate"],
        [{"title": "Parameters of the criterion", "text": pretty(found.attrs["parameters"])}],
    )


def trajectory(followed: xr.Dataset, drawn: Drawn) -> Section:
    """How they move."""
    return Section(
        "trajectory",
        "Along the trajectory",
        followed.attrs["verdict_reason"],
        figures=[f for f in drawn.values() if f["needs"] == "modulation"],
    )


def guidance(spec: dict[str, Any] | None, comparison: str | Path | None) -> Section:
    """The derived spec and what it does to images."""
    done = ACTIONS[spec["action"] if spec else "zero"]
    section = Section(
        "guidance",
        "Detail Guidance",
        f"D = D_u + s (D_c − D_u) + w (D_c − D_m), where D_m is the conditional pass with the massive channels {done} "
        "in the image-token state that enters block m.",
    )
    if spec is not None:
        section.details.append({"title": "The spec", "text": pretty(spec)})
    if comparison is not None:
        add_comparison(section, Path(comparison))
    return section


def add_comparison(section: Section, folder: Path) -> None:
    """Add the picture and the numbers of a comparison on disk."""
    picture = folder / "comparison.png"
    caption = folder / "caption.txt"
    section.figures.append(
        {
            "title": "The same seeds without and with the spec",
            "caption": caption.read_text(encoding="utf-8").strip() if caption.is_file() else "",
            "png": picture,
            "files": [],
        }
    )
    file = folder / "differences.csv"
    if file.is_file():
        with file.open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        if rows:
            section.tables.append(_differences(rows))


def _differences(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Measures down, pairs of modes across."""
    pairs = list(dict.fromkeys((row["mode"], row["against"]) for row in rows))
    cells = {(row["measure"], row["mode"]): _interval(row) for row in rows}
    return {
        "caption": f"Mean paired difference from the same seeds, with its 95 % interval over {_count(rows[0])}; "
        "▲ or ▼ where the interval leaves out 0. Intervals are not corrected for their number.",
        "head": ["measure", *(f"{mode} − {against}" for mode, against in pairs)],
        "rows": [
            [measure.replace("_", " "), *(cells[measure, mode] for mode, _ in pairs)]
            for measure in dict.fromkeys(row["measure"] for row in rows)
        ],
    }


def _count(row: dict[str, str]) -> str:
    samples = f" ({row['n_samples']} samples)" if "n_samples" in row else ""  # older files have n alone
    return f"n = {row['n']} {row.get('replicate', 'sample')}s{samples}"


def _interval(row: dict[str, str]) -> str:
    middle, low, high = (float(row[name] or "nan") for name in ("difference", "low", "high"))
    if math.isnan(low):
        shown = f"{1 + middle:.3f}" if row["measure"] == "low_pass_similarity" else f"{middle:+.3g}"
        return f"{shown} (n too small)"
    if row["measure"] == "low_pass_similarity":  # of the two images; 1 for equal ones, so a sign would say nothing
        return f"{1 + middle:.3f} [{1 + low:.3f}, {1 + high:.3f}]"
    mark = " ▲" if low > 0 else " ▼" if high < 0 else ""
    return f"{middle:+.3g} [{low:+.3g}, {high:+.3g}]{mark}"


def provenance(recording: xr.Dataset) -> Section:
    """How to make it again."""
    attrs = recording.attrs
    rows = [
        ["model", f"{attrs['model']['transformer_class']} (config {attrs['model']['config_hash']}, weights "
                  f"{attrs['model']['weight_hash']})"],
        ["pipeline", attrs["pipeline_class"]],
        ["scheduler", attrs["scheduler"]["class"]],
        ["settings fingerprint", attrs["settings_fingerprint"]],
        ["package revision", attrs["git_revision"] or "not from a checkout"],
        *([name, version] for name, version in attrs["versions"].items()),
    ]  # fmt: skip
    return Section(
        "provenance",
        "Provenance",
        "Everything that decides the numbers. Recording again with these settings on the same machine gives equal bits.",
        [{"caption": "", "head": ["what", "value"], "rows": rows}],
        details=[{"title": "Settings", "text": pretty(attrs["settings"])}],
    )


def pretty(value: Any) -> str:
    """JSON as people read it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
