"""The whole path on a model of images, from recording to report: small as in `workbench demo`, at publication size as `workbench study`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr
from rich.console import Console

from workbench.cli import show
from workbench.errors import WorkbenchError


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes
    ----------
    prompts, seeds : tuple
        Recorded are all prompts × all seeds; an empty tuple stands for the model's study prompts.
    swapped : int
        Prompts of the swap experiments, the first of `prompts`, with the first seed (and one run over seeds alone).
    grid : int
        Steps whose embeddings and latents are exchanged.
    mediate : {"all", "writers"}
        Blocks whose modulation is exchanged alone: all, or those that write the massive channels.
    tried : int
        Study prompts for disruption, sweep and baselines.
    layers : int or None
        Blocks that are disrupted, evenly over the depth; None for all.
    draws : int
        Of random controls.
    windows : bool
        Disrupt also in thirds of the trajectory.
    over : mapping
        What the sweep varies.
    tier : str
        Of the recording.
    """

    prompts: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    swapped: int = 32
    grid: int = 5
    mediate: str = "all"
    tried: int = 64
    layers: int | None = None
    draws: int = 1
    windows: bool = True
    over: Mapping[str, Sequence[Any]] = field(default_factory=lambda: {"layer": ["auto"], "weight": [1.0, 2.0, 4.0]})
    tier: str = "stats"


#: Intervals are over prompts, so many prompts; of these twelve, half choose the best setting and half report on it.
DEMO = Size(
    prompts=("red apple", "dog face", "blue heart", "pizza", "cat face", "rocket", "sunflower", "hamburger"),
    seeds=(0, 1), swapped=8, mediate="writers", tried=12, layers=2, draws=1, windows=False, over={"weight": [1.0, 4.0]}, tier="full",
)  # fmt: skip
FULL = Size()

STEPS, GUIDANCE, BATCH = 20, 4.0, 8

#: Seeds of the run in which only the seed varies; its analysis asks for five at least.
SEED_UNITS = 6


def study(model: str, size: Size, stores: Path, reports: Path, *, page: Path | None = None, yes: bool = False) -> Path:
    """Study a model of images: record, locate, exchange embeddings, derive, disrupt, sweep, sample, report.

    What was done is kept in `stores`; the same call continues after an interruption.

    Parameters
    ----------
    model : str
        Embedded name, local diffusers folder, or hub id.
    size : Size
    stores, reports : Path
        Folders for the recordings and images, and for the report.
    page : Path, optional
        Also write the report as Markdown here.
    yes : bool
        Run although an estimate is over its limit.

    Returns
    -------
    Path
        The report's ``index.html``.
    """
    from workbench import derive_dg, load_pipeline, locate, modulation
    from workbench import open as open_store
    from workbench.report import report
    from workbench.sampling.semantic import study_prompts

    console, start, step = Console(), time.monotonic(), numbered()
    pipe = load_pipeline(model)
    prompts = size.prompts or study_prompts(model)
    step(f"Record {len(prompts) * len(size.seeds)} samples of {model}: every block, every step, both branches")
    store = _record(pipe, prompts, size.seeds, stores / "recording.zarr", tier=size.tier)
    recording = open_store(store)
    step("Locate the massive channels")
    found = locate(recording)
    show.located(found)
    step("Follow them along the trajectory")
    followed = modulation(recording)
    show.modulated(followed)
    step("Exchange the timestep's embedding, and the prompt: which of them moves the magnitude?")
    swaps = _swaps(pipe, size, prompts, followed, stores)
    given: dict[str, Any] = {"experiments": swaps}
    show.tried("causal", _causal(recording, found, swaps))
    step("Derive a Detail Guidance spec")
    try:
        spec = derive_dg(recording)
    except WorkbenchError as error:
        console.print(f"[yellow]{error}[/]")
    else:
        given |= _try_out(pipe, model, size, recording, spec, stores, reports, step, yes)
    step("Report")
    written = report(store, reports, page=page, note=made_by(model, reports, page), **given)
    console.print(f"\nDone in {show.duration(time.monotonic() - start)}. Open [bold]{written}[/] in a browser.")
    return Path(written)


def numbered() -> Callable[[str], None]:
    """A function that prints headings, numbered from 1."""
    console, steps = Console(), itertools.count(1)
    return lambda text: console.print(f"\n[bold]{next(steps)}. {text}[/]")


def made_by(model: str, reports: Path, page: Path | None) -> str:
    """The sentence on a page that says how it is made again."""
    again = f"workbench study {model}" + (f" --reports {reports} --page {page}" if page else "")
    return f"Made by `{again}`, which continues where it stopped, and makes this page again from scratch elsewhere."


def _record(pipe: Any, prompts: Sequence[str], seeds: Sequence[int], out: Path, **options: Any) -> Path:
    from workbench.record import record

    return record(
        pipe, prompts=list(prompts), seeds=list(seeds), steps=STEPS, guidance_scale=GUIDANCE, batch_size=BATCH,
        out=out, **options,
    )  # fmt: skip


def _swaps(pipe: Any, size: Size, prompts: Sequence[str], followed: xr.Dataset, stores: Path) -> list[Path]:
    """A timestep-swap with mediation of the blocks that write the channels, and the single-factor runs."""
    some = prompts[: size.swapped]
    writers = [name for name in dict.fromkeys(map(str, followed["writer"].values)) if name]
    timestep = _record(
        pipe, some, size.seeds[:1], stores / "timestep-swap.zarr", experiment="timestep-swap", grid=size.grid,
        mediate="all" if size.mediate == "all" else writers or None,
    )  # fmt: skip
    prompt = _record(pipe, some, size.seeds[:1], stores / "prompt-swap.zarr", experiment="prompt-swap", grid=size.grid)
    seed = _record(pipe, some, range(SEED_UNITS), stores / "seed-swap.zarr", experiment="seed-swap", grid=size.grid)
    return [timestep, prompt, seed]


def _causal(recording: xr.Dataset, found: xr.Dataset, swaps: Sequence[Path]) -> xr.Dataset:
    from workbench.report.tried import swapped

    return swapped(recording, found, swaps)


def _try_out(
    pipe: Any,
    model: str,
    size: Size,
    recording: xr.Dataset,
    spec: Any,
    stores: Path,
    reports: Path,
    step: Any,
    yes: bool,
) -> dict[str, Any]:
    """Disrupt, sweep, compare; returns what the report takes."""
    from workbench import baselines, derive_dg, disrupt, disruption, sample, save_spec, sweep
    from workbench.analysis.baselines import baselines as analyse_baselines
    from workbench.analysis.sweep import sweep as analyse
    from workbench.sampling.save import save_comparison
    from workbench.sampling.semantic import study_prompts

    prompts = study_prompts(model)[: size.tried]
    common: dict[str, Any] = {"prompts": prompts, "batch_size": BATCH, "yes": yes}
    blocks = [str(name) for name in recording["layer"].values if name != "input"]
    count = len(blocks) if size.layers is None else size.layers
    layers = [blocks[len(blocks) * (i + 1) // (count + 1)] for i in range(count)] if count < len(blocks) else None
    windows: dict[str, Any] = {} if size.windows else {"windows": {}}
    step(f"Disrupt: what do they carry? {len(prompts)} prompts, massive channels beside controls")
    disrupted = disrupt(
        pipe, recording, out=stores / "disruption", layers=layers, draws=size.draws, **windows, **common
    )
    show.tried("disruption", disruption(disrupted))
    step("Sweep Detail Guidance: does any setting add detail and keep the content?")
    tuned: dict[str, Any] = {"model_name": model, "guidance_scale": GUIDANCE, "steps": STEPS, **common}
    swept = sweep(spec, pipe, over=size.over, out=stores / "sweep", recording=recording, **tuned)
    show.tried("sweep", analyse(swept))
    best = derive_dg(recording, sweep=swept)
    reports.mkdir(parents=True, exist_ok=True)
    show.derived(best, save_spec(best, reports / "spec.json", overwrite=True))
    step("Beside other guidances")
    beside = baselines(best, pipe, recording=recording, out=stores / "baselines", draws=size.draws, **tuned)
    show.tried("baselines", analyse_baselines(beside))
    step("Sample without and with the spec, from the same seeds")
    images = reports / "comparison"
    shown = sample(
        pipe, prompts=list(size.prompts or prompts[:8]), seeds=100, spec=best, modes=("plain", "cfg", "dg", "cfg+dg"),
        batch_size=BATCH,
    )  # fmt: skip
    show.sampled(save_comparison(shown, images, overwrite=True).differences, images)
    return {"disrupted": disrupted, "swept": swept, "baselines": beside, "spec": best, "comparison": images}
