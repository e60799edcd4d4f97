"""The verb `record`: plan, generate under the trace, write, resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from workbench.errors import RecordingError
from workbench.models import Encode, call_arguments, generate, layout_for, load_pipeline, pipeline_of, refuse_altered
from workbench.models.generate import makes_videos, pixels_a_token
from workbench.models.layout import Layout
from workbench.progress import Progress
from workbench.record.cells import resolve_mediate
from workbench.record.collect import Blocks, Collector
from workbench.record.describe import attributes_of, boundary_of, coordinates_of, identity_of, name_of
from workbench.record.experiment import Experiment
from workbench.record.interrupt import interruptible
from workbench.record.plan import Plan, make_plan
from workbench.record.probe import Shape, probe
from workbench.record.settings import Settings, make_settings
from workbench.record.trace import traced
from workbench.record.writer import Writer
from workbench.store.create import create
from workbench.store.lock import locked
from workbench.store.open import check, read_attributes
from workbench.store.schema import PARTIAL
from workbench.store.verify import verify

#: Ask before writing more than this.
DEFAULT_BUDGET = 20 * 10**9

#: Steps of an experiment's grid: 5 × 5 cells tell a bend from a line, and cost about one more generation of 20 steps.
DEFAULT_GRID = 5


def record(
    model: Any,
    *,
    prompts: str | Path | Sequence[str | Path],
    seeds: int | Sequence[int] = 0,
    out: str | Path,
    steps: int | None = None,
    guidance_scale: float | None = None,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
    tier: str | None = None,
    batch_size: int | None = None,
    select: Any = None,
    experiment: str | None = None,
    grid: int | Sequence[int] | None = None,
    mediate: Any = None,
    boundary_width: int | None = None,
    encode: Encode | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    budget: float = DEFAULT_BUDGET,
    yes: bool = False,
    repair: bool = False,
    progress: bool = True,
    confirm: Callable[[Plan], bool] | None = None,
) -> Path:
    """Generate images and record the hidden states of every block on the way.

    The images are bit-identical to those of the plain pipeline. An interrupted recording is continued by the same call.

    Parameters
    ----------
    model : str, Path or pipeline
        Embedded name, local diffusers folder, hub id, or a loaded pipeline.
    prompts, seeds
        Samples are all prompts × all seeds. A prompt that ends in ``.txt`` is a file with one prompt a line.
    out : str or Path
        Folder of the store.
    steps, guidance_scale, height, width, num_frames, tier, batch_size, select
        See :class:`~workbench.record.settings.Settings`.
    experiment : {"timestep-swap", "prompt-swap", "seed-swap"}, optional
        Instead of the trajectory, record forward passes in which pieces are exchanged, see ``docs/schema.md``:
        the timestep embedding of one step with the latents of another; every prompt's text with the first prompt's
        latents; every seed's own latents.
    grid : int or sequence of int
        How many steps of the trajectory an experiment uses (evenly spread, both ends included; default 5), or which.
    mediate : sequence of str or "all", optional
        For a timestep-swap: blocks in which gate, shift and scale, or all of the modulation are exchanged alone.
    boundary_width : int, optional
        Tokens at the head, and as many at the tail, of every later latent frame of a video whose role is "boundary"
        (`workbench.roles`). Default: one row of tokens, which is a choice of the workbench. It is a label only; what is
        recorded doesn't depend on it, and `workbench.roles.with_roles` gives a recording another.
    encode : callable, optional
        ``encode(prompts)`` returns the pipeline's arguments (embeddings) in place of the texts.
    revision, dtype, device
        See :func:`~workbench.models.load_pipeline`.
    budget : float
        Bytes; a larger recording needs ``yes=True``.
    repair : bool
        In an existing store, check everything against its checksums first and record damaged samples anew.
    progress : bool
        Show a progress bar.
    confirm : callable, optional
        Asked with the plan before anything is written or continued; False stops without an error.

    Returns
    -------
    Path
        The store, complete.

    Raises
    ------
    RecordingError
        Among others: the store was made with other settings, the disk is full, a state is not finite.
    """
    settings = make_settings(
        prompts, seeds, steps=steps, guidance_scale=guidance_scale, height=height, width=width,
        num_frames=num_frames, tier=tier, batch_size=batch_size, select=select, experiment=experiment,
        grid=DEFAULT_GRID if experiment and grid is None else grid, mediate=mediate,
    )  # fmt: skip
    pipe = model if hasattr(model, "scheduler") else load_pipeline(model, revision=revision, dtype=dtype, device=device)
    layout = layout_for(pipe, token_timesteps=True)
    refuse_altered(pipe, "recorded states", RecordingError)
    settings = resolve_mediate(settings, layout.block_paths(pipe.transformer))
    out = Path(out)
    identity = identity_of(pipe, settings, encode, revision)
    if out.exists():
        _same_settings(out, identity, repair)
        _same_width(out, boundary_width)
    shape, plan = prepare(pipe, layout, settings, encode, timed=confirm is not None)
    boundary = boundary_of(shape, boundary_width, pipeline_of(pipe, layout, derived=True).first)
    if not out.exists():
        _within_budget(plan, budget, yes)
    if confirm is not None and not confirm(plan):
        return out
    if not out.exists():
        create(
            out,
            coordinates=coordinates_of(settings, plan, shape, boundary.get("boundary_width")),
            variables=plan.variables,
            chunks=plan.chunks,
            hidden_dtype=plan.hidden_dtype,
            attributes=attributes_of(name_of(model, pipe), layout, shape, plan, identity) | boundary,
        )
    with locked(out, "recording into", RecordingError):
        _run(pipe, layout, settings, shape, plan, out, encode, progress, repair)
    return out


def prepare(
    pipe: Any, layout: Layout, settings: Settings, encode: Encode | None = None, *, timed: bool = False
) -> tuple[Shape, Plan]:
    """One dry forward pass, and the plan that follows from it."""
    shape = probe(pipe, layout, settings, encode, timed=timed)
    return shape, make_plan(settings, shape, _image_size(pipe, settings, shape))


def _run(
    pipe: Any,
    layout: Layout,
    settings: Settings,
    shape: Shape,
    plan: Plan,
    out: Path,
    encode: Encode | None,
    progress: bool,
    repair: bool,
) -> None:
    samples = settings.samples
    for left in out.glob(f"*/c.*{PARTIAL}"):  # by a run that was killed
        left.unlink()
    done = _finished(out)
    if repair:
        done -= verify(out).wrong_samples
    batches = [
        range(i, min(i + settings.batch_size, len(samples))) for i in range(0, len(samples), settings.batch_size)
    ]
    todo = [batch for batch in batches if not done.issuperset(batch)]
    with (
        _writing(out, plan) as writer,
        Progress("recording", len(todo) * (len(shape.timesteps) + len(plan.cells)), progress) as bar,
        interruptible() as check_interrupt,
    ):

        def advance() -> None:
            check_interrupt()
            bar.advance()

        experiment = Experiment(pipe, layout, settings, shape, plan, encode, advance) if plan.cells else None
        for batch in todo:
            blocks = Blocks(plan, writer, batch, done & set(batch))
            if experiment is not None:
                experiment.run(batch, blocks)
                continue
            collector = Collector(blocks, shape, layout, advance)
            with traced(pipe, layout, on_call=collector.on_call, on_state=collector.on_state,
                        on_done=collector.on_done):  # fmt: skip
                made = generate(pipe, call_arguments(pipe, [samples[i] for i in batch], **settings.call, encode=encode))
            if not np.isfinite(made.latents).all():
                raise RecordingError(
                    "The final latents have NaN or infinite values: this model, at these settings, generates no image."
                )
            collector.finish(made)


@contextmanager
def _writing(out: Path, plan: Plan) -> Iterator[Writer]:
    writer = Writer(out, plan)
    try:
        yield writer
    except BaseException as error:
        try:  # let what is complete reach the disk
            writer.close()
        except RecordingError as cause:
            if isinstance(error, RecordingError):
                raise cause from error  # the writer saw first what then also stopped the generation
        raise
    writer.close()


def _finished(out: Path) -> set[int]:
    """Samples that have all of their markers."""
    group: Any = zarr.open_group(str(out), mode="r")
    units, whole = np.asarray(group["unit_checksum"][:]) != 0, np.asarray(group["sample_checksum"][:]) != 0
    return {int(i) for i in np.flatnonzero(units.all(axis=(1, 2, 3)) & whole)}


def _image_size(pipe: Any, settings: Settings, shape: Shape) -> tuple[int, ...] | None:
    """(height, width) of the decoded images, (frames, height, width) of videos; None where nothing is decoded."""
    if getattr(pipe, "vae", None) is None:
        return None
    height, width = (length * pixels_a_token(pipe) for length in shape.grid[1:])
    layout = layout_for(pipe, token_timesteps=True)
    if not makes_videos(pipe):
        return height, width
    # A pipeline may add latent frames to its own ends, and takes them off again.
    latent = shape.latent[1] if len(shape.latent) == 4 else shape.grid[0]
    pixel = (latent - 1) * layout.causal_time + 1 if layout.first_alone else latent * layout.causal_time
    return settings.num_frames or pixel, height, width


def _same_settings(out: Path, identity: dict[str, Any], repair: bool) -> None:
    """Refuse a store that is damaged or was made otherwise."""
    attributes = read_attributes(out)
    if not repair:
        check(out, attributes)
    old = attributes["settings"]
    differ = sorted(name for name in {*old, *identity} if old.get(name) != identity.get(name))
    if differ:
        shown = "; ".join(f"{name}: {_short(old.get(name))} there, {_short(identity.get(name))} now" for name in differ)
        raise RecordingError(
            f"{out} holds a recording with other settings ({shown}). It was left as it is. Record with the same settings to "
            "continue it, or choose another --out."
        )


def _same_width(out: Path, width: int | None) -> None:
    """Refuse to continue a store under another boundary width than was asked for."""
    there = read_attributes(out).get("boundary_width")
    if width is not None and width != there:
        raise RecordingError(
            f"{out} holds a recording with boundary_width = {there}, not {width}. The width is a label only: leave it out to "
            f"continue, and read with `workbench.roles.with_roles(recording, {width})`."
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _within_budget(plan: Plan, budget: float, yes: bool) -> None:
    if plan.bytes > budget and not yes:
        raise RecordingError(
            f"This recording takes {plan.bytes / 1e9:.1f} GB, more than the budget of {budget / 1e9:.1f} GB. Record "
            "fewer layers or steps (--layers, --timesteps), fewer tokens (--height, --width), statistics only "
            "(--tier stats), or say --yes."
        )
