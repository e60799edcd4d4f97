"""The verb `record`: plan, generate under the trace, write, resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from workbench.errors import RecordingError
from workbench.models import Encode, call_arguments, fingerprint, generate, is_steered, layout_for, load_pipeline
from workbench.models.fingerprint import weight_hash
from workbench.models.layout import Layout
from workbench.progress import Progress
from workbench.record.collect import Collector
from workbench.record.plan import Plan, make_plan
from workbench.record.probe import Shape, probe
from workbench.record.provenance import git_revision, versions
from workbench.record.settings import Settings, make_settings
from workbench.record.trace import traced
from workbench.record.writer import Writer, locked
from workbench.store.create import create
from workbench.store.open import check, read_attributes
from workbench.store.schema import FORMAT, SCHEMA_VERSION
from workbench.store.verify import verify

#: Ask before writing more than this.
DEFAULT_BUDGET = 20 * 10**9


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
    tier: str | None = None,
    batch_size: int | None = None,
    select: Any = None,
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
    steps, guidance_scale, height, width, tier, batch_size, select
        See :class:`~workbench.record.settings.Settings`.
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
        prompts, seeds, steps=steps, guidance_scale=guidance_scale, height=height, width=width, tier=tier,
        batch_size=batch_size, select=select,
    )  # fmt: skip
    pipe = model if hasattr(model, "scheduler") else load_pipeline(model, revision=revision, dtype=dtype, device=device)
    layout = layout_for(pipe)
    if is_steered(pipe):
        raise RecordingError(
            "A steering spec is being applied to this pipeline, and a recording has no word for that: its numbers would "
            "pass for the plain model's. Record outside of `with workbench.apply(...)`."
        )
    out = Path(out)
    identity = _identity(pipe, settings, encode, revision)
    if out.exists():
        _same_settings(out, identity, repair)
    shape, plan = prepare(pipe, layout, settings, encode, timed=confirm is not None)
    if not out.exists():
        _within_budget(plan, budget, yes)
    if confirm is not None and not confirm(plan):
        return out
    if not out.exists():
        create(
            out,
            coordinates=_coordinates(settings, plan, shape),
            variables=plan.variables,
            chunks=plan.chunks,
            hidden_dtype=plan.hidden_dtype,
            attributes=_attributes(_name(model, pipe), layout, shape, plan, identity),
        )
    with locked(out):
        _run(pipe, layout, settings, shape, plan, out, encode, progress, repair)
    return out


def prepare(
    pipe: Any, layout: Layout, settings: Settings, encode: Encode | None = None, *, timed: bool = False
) -> tuple[Shape, Plan]:
    """One dry forward pass, and the plan that follows from it."""
    shape = probe(pipe, layout, settings, encode, timed=timed)
    return shape, make_plan(settings, shape, _image_size(pipe, shape))


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
    done = _finished(out)
    if repair:
        done -= verify(out).wrong_samples
    batches = [
        range(i, min(i + settings.batch_size, len(samples))) for i in range(0, len(samples), settings.batch_size)
    ]
    todo = [batch for batch in batches if not done.issuperset(batch)]
    with _writing(out, plan) as writer, Progress("recording", len(todo) * len(shape.timesteps), progress) as bar:
        for batch in todo:
            collector = Collector(plan, shape, layout, writer, batch, done & set(batch), bar.advance)
            with traced(pipe, layout, on_call=collector.on_call, on_state=collector.on_state,
                        on_done=collector.on_done):  # fmt: skip
                latents, images = generate(
                    pipe, call_arguments(pipe, [samples[i] for i in batch], **settings.call, encode=encode)
                )
            if not np.isfinite(latents).all():
                raise RecordingError(
                    "The final latents have NaN or infinite values: this model, at these settings, generates no image."
                )
            collector.finish(latents, images)


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


def _image_size(pipe: Any, shape: Shape) -> tuple[int, int] | None:
    if getattr(pipe, "vae", None) is None:
        return None
    return shape.latent[-2] * pipe.vae_scale_factor, shape.latent[-1] * pipe.vae_scale_factor


def _identity(pipe: Any, settings: Settings, encode: Encode | None, revision: str | None) -> dict[str, Any]:
    """What decides the numbers: settings, model, scheduler, arithmetic. Compared item by item at a resume."""
    return {
        **settings.model_dump(mode="json"),
        "model": fingerprint(pipe, revision=revision),
        "components": _components(pipe, encode),
        "pipeline_class": type(pipe).__name__,
        "scheduler": {"class": type(pipe.scheduler).__name__, **_plain(pipe.scheduler.config)},
        "dtype": str(pipe.transformer.dtype).removeprefix("torch."),
        "device": pipe.transformer.device.type,
        "embeddings": _embedding_hash(encode, settings) if encode else None,
        "torch": versions()["torch"],
        "diffusers": versions()["diffusers"],
    }


def _components(pipe: Any, encode: Encode | None) -> dict[str, str]:
    """Weight hashes of what else computes the images: the VAE, and the text encoders unless embeddings are given."""
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {
        name: weight_hash(part)
        for name, part in parts.items()
        if name != "transformer" and not (encode and name.startswith("text_encoder"))
    }


def _embedding_hash(encode: Encode, settings: Settings) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(encode(settings.prompts).items()):
        digest.update(name.encode())
        digest.update(
            value.detach().float().cpu().numpy().tobytes() if torch.is_tensor(value) else repr(value).encode()
        )
    return digest.hexdigest()[:16]


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


def _coordinates(settings: Settings, plan: Plan, shape: Shape) -> dict[str, np.ndarray]:
    prompts, seeds = zip(*settings.samples, strict=True)
    frames, rows, columns = np.indices(shape.grid).reshape(3, -1)
    steps = list(plan.steps)
    blocks = {layer: i - 1 for i, layer in enumerate(shape.layers)}
    return {
        "sample": np.arange(len(prompts)),
        "prompt": np.array(prompts, dtype=object),
        "seed": np.array(seeds),
        "branch": np.array(plan.branches, dtype=object),
        "layer": np.array(plan.layers, dtype=object),
        "block": np.array([blocks[layer] for layer in plan.layers]),
        "timestep": shape.timesteps[steps],
        "step": np.array(steps),
        "sigma": shape.sigmas[steps],
        "token": np.arange(shape.tokens),
        "frame": frames,
        "row": rows,
        "column": columns,
        "channel": np.arange(shape.channels),
        "rank": np.arange(plan.sizes["rank"]),
        "modulation_term": np.array(shape.terms, dtype=object),
    }


def _name(model: Any, pipe: Any) -> str:
    """What people call the model: its embedded name or hub id, the folder's name, or the pipeline's class."""
    if model is pipe:
        return type(pipe).__name__
    return Path(model).name if Path(model).is_dir() else str(model)


def _attributes(name: str, layout: Layout, shape: Shape, plan: Plan, identity: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "model_name": name,
        "model": identity["model"],
        "pipeline_class": identity["pipeline_class"],
        "layout": {
            "family": layout.family,
            "transformer": layout.transformer,
            # Of the model, so that a recording of some layers is known to be one.
            "blocks": len(shape.layers) - 1,
            "channels": shape.channels,
        },
        "scheduler": identity["scheduler"],
        "dtype": identity["dtype"],
        "tier": identity["tier"],
        "settings": identity,
        "settings_fingerprint": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16],
        "versions": versions(),
        "git_revision": git_revision(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "block_steps": plan.block,
    }


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A diffusers config as plain JSON, without its private entries."""
    kept = {k: v for k, v in dict(config).items() if not k.startswith("_")}
    return dict(json.loads(json.dumps(kept, default=str)))
