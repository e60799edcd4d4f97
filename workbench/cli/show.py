"""What the verbs returned, for a terminal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import xarray as xr
from rich.console import Console
from rich.table import Table

_console = Console()
_VERDICT = {"supported": "green", "not supported": "yellow", "undecided": "cyan"}
_DONE = {"zero": "zeroed", "scale": "scaled down", "mean": "replaced by their mean"}


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def table(title: str, head: list[str], rows: list[list[Any]]) -> None:
    """One table; numbers to the right with four significant digits."""
    drawn = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column, name in enumerate(head):
        numeric = bool(rows) and all(isinstance(row[column], int | float) for row in rows)
        drawn.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    _console.print(drawn)


def text(words: str) -> None:
    """A sentence."""
    _console.print(words, soft_wrap=True, highlight=False)


def plan(the_plan: Any, *, details: bool) -> None:
    """Bytes, files and time of a recording, before it is made."""
    rows = [
        [name, " × ".join(map(str, shape)), size(the_plan.bytes_of(name))]
        for name, shape in the_plan.variables.items()
        if the_plan.bytes_of(name) >= 0.001 * the_plan.bytes
    ]
    if details:
        table("What will be recorded", ["variable", "shape", "size"], rows)
    _console.print(
        f"In all [bold]{size(the_plan.bytes)}[/] in {the_plan.files} files, about "
        f"[bold]{duration(the_plan.seconds)}[/] ({the_plan.sizes['sample']} samples, {len(the_plan.branches)} branches, "
        f"{len(the_plan.layers)} layers, {len(the_plan.steps)} {'cells' if the_plan.cells else 'steps'}, {the_plan.sizes['token']} tokens, "
        f"{the_plan.sizes['channel']} channels).",
        soft_wrap=True,
    )


def recorded(store: Path) -> None:
    """A finished recording, and what to do next."""
    from workbench.store import open_recording

    recording = open_recording(store)
    # An experiment is no trajectory: its analysis is another.
    following = "modulation" if recording.attrs.get("experiment") else "locate"
    more = f", or workbench report {store}" if following == "locate" else ""
    _console.print(
        f"Recorded [bold]{recording.sizes['sample']}[/] samples into [bold]{store}[/]. Next: "
        f"workbench {following} {store}{more}.",
        soft_wrap=True,
    )


def verdict(evidence: xr.Dataset) -> None:
    """The last word of an analysis."""
    word = evidence.attrs["verdict"]
    _console.print(f"[bold {_VERDICT.get(word, 'magenta')}]{word}[/]: {evidence.attrs['verdict_reason']}")


def located(found: xr.Dataset) -> None:
    """Located channels, then how many channels every criterion calls massive, then the verdict."""
    from workbench.analysis.locate import located_channels
    from workbench.analysis.locate import table as rows_of
    from workbench.figures.style import short

    rows = [
        [
            row["channel"],
            row["sign"],
            short(row["peak_layer"]),
            row["magnitude"],
            f"{row['ratio_to_median']:.1f} [{row['ratio_low']:.1f}, {row['ratio_high']:.1f}]",
            f"{row['dominance']:.0%}",
            f"{row['layers']}",
        ]
        for row in rows_of(found)
    ]
    if rows:
        table(
            f"Massive channels by criterion {found.attrs['criterion']} (n = {found.attrs['replication']})",
            ["channel", "sign", "largest after", "mean |h|", "× median channel", "largest on", "blocks"],
            rows,
        )
    others = []
    for name in map(str, found["criterion"].values):
        channels = located_channels(found, criterion=name)
        text = ", ".join(map(str, channels[:16])) + (f", … ({len(channels)})" if len(channels) > 16 else "")
        others.append([name, len(channels), text or "none"])
    table("All criteria", ["criterion", "channels", "which"], others)
    verdict(found)


def modulated(followed: xr.Dataset) -> None:
    """How each channel moves with the noise, and the verdict."""
    from workbench.figures.style import short

    rows = []
    for channel in followed["channel"].values:
        at = followed.sel(channel=channel)
        blocks = at.isel(layer=[i for i, layer in enumerate(at["layer"].values) if layer != "input"])
        peak = blocks.isel(layer=int(blocks["ratio_to_median"].mean("timestep").values.argmax()))
        low, middle, high = (float(peak[f"sigma_slope{end}"]) for end in ("_low", "", "_high"))
        if math.isnan(low):
            direction, slope = f"too few {followed.attrs['replicate']}s", f"{middle:+.2f}"
        else:
            direction = {1: "grows with noise", -1: "grows as noise falls", 0: "neither"}[int(peak["direction"])]
            slope = f"{middle:+.2f} [{low:+.2f}, {high:+.2f}]"
        rows.append(
            [int(channel), short(str(peak["layer"].values)), direction, slope, short(str(at["writer"].values)) or "?"]
        )
    table(
        f"Along the trajectory (n = {followed.attrs['replication']})",
        ["channel", "peak layer", "direction", "slope of ln|h| per sigma", "written by"],
        rows,
    )
    verdict(followed)


def number(value: Any) -> str:
    """A number of a spec, or how it changes with the noise."""
    knots = getattr(value, "knots", None)
    return f"{value:g}" if knots is None else ", ".join(f"{at:g} at sigma {sigma:g}" for sigma, at in knots)


def tried(name: str, evidence: xr.Dataset) -> None:
    """What came out of an experiment, in the tables of the report.

    Parameters
    ----------
    name : {"causal", "disruption", "sweep", "baselines", "profile", "hierarchy", "stas", "stas_choice"}
    evidence : xr.Dataset
        What that analysis returned.
    """
    from workbench.report.choice import choice_section
    from workbench.report.trials import TRIED
    from workbench.report.video import ANALYSED, effects

    if name == "stas_choice":
        tables = choice_section(evidence).tables
    else:
        tables = [effects(evidence)] if name == "stas" else (TRIED | ANALYSED)[name](evidence, {}).tables
    for one in tables:
        kept = one.get("brief", range(len(one["head"])))  # the whole table is in the report
        table(one["caption"], [one["head"][i] for i in kept], [[row[i] for i in kept] for row in one["rows"]])
    if "verdict" in evidence.attrs:
        verdict(evidence)


def derived(spec: Any, path: Path) -> None:
    """A spec that was written."""
    if spec.method == "stas":
        from workbench.report.video import steers

        _console.print(f"Wrote [bold]{path}[/]. {steers(spec.model_dump(mode='json'))}", soft_wrap=True)
        if tried := spec.evidence.notes.get("sweep"):
            said = "; ".join(str(tried[key]) for key in ("reason", "conclusion") if tried.get(key))
            _console.print(f"By the trial, [bold]{tried.get('verdict', '')}[/]: {said}.", soft_wrap=True)
        if warning := spec.evidence.notes.get("warning"):
            _console.print(f"[yellow]{warning}[/]")
        return
    _console.print(
        f"Wrote [bold]{path}[/]: channel {', '.join(map(str, spec.channels))} {_DONE[spec.action]} in the image tokens "
        f"that enter {spec.layer}, weight {number(spec.weight)}."
        + (f" Retention {number(spec.retention)}." if spec.retention is not None else "")
    )
    if warning := spec.evidence.notes.get("warning"):
        _console.print(f"[yellow]{warning}[/]")


def sample_count(store: Path) -> int:
    """Samples of a recording, without reading it."""
    from workbench.store import read_attributes

    settings = read_attributes(store)["settings"]
    return len(settings["prompts"]) * len(settings["seeds"])


def verified(store: Path, result: Any) -> bool:
    """Completeness and checksums; True if all is well."""
    _console.print(
        f"{store}: {result.complete} of {result.units} units and {result.finished} of {result.samples} samples are there "
        "with a matching checksum."
    )
    for line in result.absent:
        _console.print(f"[yellow]absent[/]: {line} — run the same `workbench record` command to continue")
    for line in result.wrong[:20]:
        _console.print(f"[red]wrong[/]: {line}")
    if result.wrong:
        _console.print("Run the same `workbench record` command with --repair: it records these samples anew.")
    if len(result.wrong) > 20:
        _console.print(f"[red]… and {len(result.wrong) - 20} more[/]")
    if result.ok:
        _console.print("[green]complete and unchanged[/]")
    return bool(result.ok)


def sampled(differences: Any, folder: Path) -> None:
    """Where the images are, and what each guidance changed."""
    if len(differences):
        pairs = list(dict.fromkeys(zip(differences["mode"], differences["against"], strict=True)))
        cells = {
            (r.measure, r.mode): f"{r.difference:+.2g} "
            + ("(n too small)" if math.isnan(r.low) else f"[{r.low:+.2g}, {r.high:+.2g}]")
            for r in differences.itertuples()
        }
        table(
            f"Mean paired difference from the same seeds (n = {differences.n.iloc[0]} {differences.replicate.iloc[0]}s, "
            f"{differences.n_samples.iloc[0]} samples; 95 % intervals)",
            ["measure", *(f"{mode} − {against}" for mode, against in pairs)],
            [
                [measure.replace("_", " "), *(cells[measure, mode] for mode, _ in pairs)]
                for measure in dict.fromkeys(differences["measure"])
            ],
        )
    _console.print(f"Images: [bold]{folder}[/]")


def families() -> None:
    """The table of families, from their rows."""
    from workbench.models.mini import EMBEDDED
    from workbench.models.presets import PRESETS
    from workbench.models.table import lines

    rows = [
        [line.family, line.title, line.modulation.partition(":")[0], _short(line.detail_guidance), _short(line.stas)]
        for line in lines()
    ]
    table("Families", ["family", "name", "modulation", "Detail Guidance", "STAS"], rows)
    _console.print("Classes, pipelines and reasons, also of what is refused: docs/models.md.")
    text(
        f"Embedded models: {', '.join(EMBEDDED)}. Presets: {', '.join(PRESETS)}; what one needs says `workbench models PRESET`. "
        "Check a model of your own with `workbench models MODEL`."
    )


def _short(said: str) -> str:
    """Yes, no, or some of the pipelines."""
    return said if said == "yes" else "no" if said.startswith("no:") else "some"


def checked(model: str, device: str | None) -> None:
    """One model after a dry forward pass."""
    from workbench.models import fingerprint, layout_for, load_pipeline
    from workbench.record import make_settings, prepare

    pipe = load_pipeline(model, device=device)
    layout = layout_for(pipe, token_timesteps=True)
    shape, _ = prepare(pipe, layout, make_settings(["a photo"], [0]), timed=True)
    identity = fingerprint(pipe)
    table(
        f"{model}: works as its layout says",
        ["what", "value"],
        [
            ["pipeline", type(pipe).__name__],
            ["family", layout.family],
            ["transformer", identity["transformer_class"]],
            ["config, weights", f"{identity['config_hash']}, {identity['weight_hash']}"],
            ["blocks", str(len(shape.layers) - 1)],
            ["channels", str(shape.channels)],
            ["token grid (F, H, W)", " × ".join(map(str, shape.grid))],
            ["branches", " + ".join(shape.branches)],
            ["dtype", shape.dtype],
            ["one call", f"{shape.seconds:.3g} s"],
        ],
    )
