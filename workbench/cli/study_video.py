"""The whole path on a model of videos: record, locate, profile, hierarchy, STAS with its controls, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from workbench.cli import show
from workbench.cli.study import BATCH, GUIDANCE, STEPS, made_by, numbered
from workbench.errors import WorkbenchError
from workbench.steering.windows import first_part


@dataclass(frozen=True)
class VideoSize:
    """How much of everything.

    Attributes
    ----------
    prompts : int
        Study prompts that are recorded, each with one seed; 0 for all.
    timesteps : str
        Steps whose hidden states are kept.
    tried : int
        Study prompts of the trial of STAS; 0 for all.
    controls : tuple of str, optional
        Of the trial; None for all.
    over : mapping
        Settings that the trial tries besides.
    shown : int
        Study prompts whose videos are made without and with the spec.
    """

    prompts: int = 0
    timesteps: str = "::2"
    tried: int = 0
    controls: tuple[str, ...] | None = None
    over: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    shown: int = 6


DEMO = VideoSize(prompts=12, timesteps="::4", tried=8, controls=("low", "all-tokens", "zero", "late"), shown=4)
#: `over` is the coarse grid of `workbench.sampling.stas_grid`.
FULL = VideoSize(tried=32, over={"alpha": [0.8, 1.2], "window": [first_part(0.2).model_dump(mode="json")]})


def study_video(
    model: str, size: VideoSize, stores: Path, reports: Path, *, page: Path | None = None, yes: bool = False
) -> Path:
    """Study a model of videos. What was done is kept in `stores`; the same call continues after an interruption.

    Parameters
    ----------
    model : str
        Embedded name, local diffusers folder, or hub id; it must ship study prompts.
    size : VideoSize
    stores, reports : Path
        Folders for the recordings and videos, and for the report.
    page : Path, optional
        Also write the report as Markdown here.
    yes : bool
        Run although an estimate is over its limit.

    Returns
    -------
    Path
        The report's ``index.html``.
    """
    from workbench import derive_stas, hierarchy, load_pipeline, locate, profile, save_spec
    from workbench import open as open_store
    from workbench.record import record
    from workbench.report import report
    from workbench.sampling.semantic import study_prompts
    from workbench.select import Select

    console, start, step = Console(), time.monotonic(), numbered()
    pipe = load_pipeline(model)
    prompts = study_prompts(model)
    step(f"Record {size.prompts or len(prompts)} videos of {model}: every block, hidden states of some steps")
    store = record(
        pipe, prompts=list(prompts[: size.prompts or None]), seeds=[0], steps=STEPS, guidance_scale=GUIDANCE,
        batch_size=BATCH, tier="full", select=Select(timesteps=size.timesteps, branches="cond"), out=stores / "recording.zarr",
        yes=yes,
    )  # fmt: skip
    recording = open_store(store)
    step("Locate the massive channels")
    show.located(locate(recording))
    given: dict[str, Any] = {}
    try:
        step("Read the profile over the tokens: how wide is a boundary?")
        read = profile(recording)
        show.tried("profile", read)
        step("Test the frame hierarchy: first frame > boundary > interior?")
        levels = hierarchy(recording)
        show.tried("hierarchy", levels)
        step("Derive a STAS spec")
        # What the verdict is stands in the spec; the trial asks what steering does, whatever it is.
        evidence: dict[str, Any] = {"hierarchy": levels, "profile": read, "anyway": True}
        spec = derive_stas(recording, **evidence)
        reports.mkdir(parents=True, exist_ok=True)
        show.derived(spec, save_spec(spec, reports / "spec.json", overwrite=True))
    except WorkbenchError as error:
        console.print(f"[yellow]{error}[/]")
    else:
        given = _try_out(pipe, model, size, recording, spec, evidence, prompts, stores, reports, step, yes)
    step("Report")
    written = report(store, reports, page=page, note=made_by(model, reports, page), **given)
    console.print(f"\nDone in {show.duration(time.monotonic() - start)}. Open [bold]{written}[/] in a browser.")
    return Path(written)


def _try_out(
    pipe: Any,
    model: str,
    size: VideoSize,
    recording: Any,
    spec: Any,
    evidence: Mapping[str, Any],
    prompts: Sequence[str],
    stores: Path,
    reports: Path,
    step: Any,
    yes: bool,
) -> dict[str, Any]:
    """Run the trial of STAS, derive again by it, and the comparison; returns what the report takes."""
    from workbench import derive_stas, sample, save_spec, stas_effects, stas_trial
    from workbench.sampling.save import save_comparison
    from workbench.sampling.stas_conditions import CONTROLS

    tried = prompts[: size.tried or None]
    step(f"Try STAS out: {len(tried)} prompts without it, with it, and with the paper's controls")
    trial = stas_trial(
        spec, pipe, out=stores / "stas", recording=recording, controls=size.controls or CONTROLS, over=size.over or None,
        prompts=tried, steps=STEPS, guidance_scale=GUIDANCE, batch_size=BATCH, model_name=model, yes=yes,
    )  # fmt: skip
    show.tried("stas", stas_effects(trial))
    if size.over:
        step("Derive the spec again: the best of the settings that were tried, if one is better than none")
        spec = derive_stas(recording, **evidence, sweep=trial)
        show.derived(spec, save_spec(spec, reports / "spec.json", overwrite=True))
    step("Videos without and with the spec, from the same seeds")
    folder = reports / "comparison"
    shown = sample(
        pipe, prompts=list(prompts[: size.shown]), seeds=100, spec=spec, modes=("cfg", "cfg+stas"), steps=STEPS,
        guidance_scale=GUIDANCE, batch_size=BATCH,
    )  # fmt: skip
    show.sampled(save_comparison(shown, folder, overwrite=True).differences, folder)
    return {"stas": trial, "spec": spec, "comparison": folder}
