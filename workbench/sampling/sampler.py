"""The bundled sampler: the same prompts and seeds through a stock pipeline, with and without CFG, DG and STAS."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import SpecError, UnsupportedModelError, WorkbenchError
from workbench.models import (
    Encode,
    call_arguments,
    fingerprint,
    generate,
    load_pipeline,
    makes_videos,
    refuse_altered,
)
from workbench.progress import Progress
from workbench.sampling.memory import refuse_too_large
from workbench.sampling.result import MODES, SampleResult
from workbench.steering.attach import apply
from workbench.steering.spec import DetailGuidanceSpec, StasSpec, load_spec

Steering = DetailGuidanceSpec | StasSpec
"""Specs that a mode can apply."""

STEERED: dict[str, type[Steering]] = {"dg": DetailGuidanceSpec, "stas": StasSpec}
"""Part of a mode's name → the spec that it applies."""


def sample(
    model: Any,
    *,
    prompts: str | Sequence[str],
    seeds: int | Sequence[int] = 0,
    steps: int | None = None,
    guidance_scale: float | None = None,
    spec: Steering | str | Path | None = None,
    modes: str | Sequence[str] | None = None,
    compare: bool = False,
    batch_size: int = 4,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
    encode: Encode | None = None,
    strict: bool = True,
    progress: bool = True,
) -> SampleResult:
    """Generate every prompt with every seed, once in each mode.

    Every sample has a generator of its own, so its noise depends on its seed alone: the modes start from the same
    noise, and neighbours in the batch don't matter to it.

    Parameters
    ----------
    model : str, Path or pipeline
        Embedded name, local diffusers folder, hub id, or a loaded pipeline. A pipeline is left as it was.
    prompts : str or sequence of str
        At least one, each once.
    seeds : int or sequence of int
        Each once. Samples are all prompts × all seeds, prompt by prompt.
    steps : int, optional
        Denoising steps. Default: what the spec recommends, else 20.
    guidance_scale : float, optional
        s, of the modes with CFG. Default: what the spec recommends, else 4.
    spec : DetailGuidanceSpec, StasSpec or path, optional
        Needed by the modes with ``dg`` or ``stas``, whichever it is of.
    modes : str or sequence of str, optional
        ``plain`` (the conditional prediction alone), ``cfg``, ``dg`` (Detail Guidance without CFG), ``cfg+dg``, ``stas``,
        ``cfg+stas``. Default: with CFG, and with the spec where there is one.
    compare : bool
        All modes there are: without and with CFG, each without and, if there is a spec, with it. In place of `modes`.
    batch_size : int
        Samples generated together. Kernels may round differently at another batch size.
    height, width : int, optional
        Pixels. Default: what a spec of STAS recommends, else the pipeline's own.
    num_frames : int, optional
        Of a video. Default: likewise.
    encode : callable, optional
        ``encode(prompts)`` returns the pipeline's arguments (embeddings) in place of the texts.
    strict : bool
        As in `workbench.apply`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    SampleResult
        Images (mode, sample, y, x, rgb) or videos (mode, sample, frame, y, x, rgb), latents, and what they were made with.

    Raises
    ------
    WorkbenchError
        If prompts, seeds or modes are missing, given twice or unknown, the result is not finite, or the pipeline is being
        steered already.
    SpecError
        If a mode needs a spec and there is none, or one of another method, or the spec is not for this model, or it recommends a
        size that does not fit into memory.
    """
    loaded: Any = load_spec(spec) if isinstance(spec, (str, Path)) else spec
    if compare and modes is not None:
        raise WorkbenchError(f"compare=True takes all modes; leave modes={modes!r} out, or compare.")
    names = all_modes(loaded) if compare else _modes(default_mode(loaded) if modes is None else modes)
    texts, numbers = distinct_prompts(prompts), distinct_seeds(seeds)
    chosen = _spec(loaded, names)
    steps, guidance_scale = defaults(chosen, steps, guidance_scale)
    check_numbers(steps, guidance_scale, batch_size, names)
    pipe = model if hasattr(model, "scheduler") else load_pipeline(model)
    check_pipeline(pipe)
    samples = [(prompt, seed) for prompt in texts for seed in numbers]
    asked = {"height": height, "width": width, "num_frames": num_frames}
    size = sizes_of(chosen, **asked)
    refuse_too_large(pipe, size, asked, min(batch_size, len(samples)))

    def one(mode: str, batch: list[tuple[str, int]]) -> tuple[np.ndarray, Any]:
        scale = guidance_scale if "cfg" in mode else 1.0
        arguments = call_arguments(pipe, batch, steps=steps, guidance_scale=scale, **size, encode=encode)
        made = generate(pipe, arguments, bar.advance)
        return made.latents, made.images

    batches = [samples[i : i + batch_size] for i in range(0, len(samples), batch_size)]
    made: list[list[tuple[np.ndarray, Any]]] = []
    with silent(pipe), Progress("sampling", len(names) * len(batches) * steps, progress) as bar:
        for mode in names:
            with _steered(mode, chosen, pipe, strict):
                made.append([one(mode, batch) for batch in batches])
    latents, images = (np.stack([np.concatenate([pair[i] for pair in row]) for row in made]) for i in (0, 1))
    _check_finite(latents, names, samples)
    return SampleResult(
        images=images,
        latents=latents,
        modes=names,
        prompts=tuple(prompt for prompt, _ in samples),
        seeds=tuple(seed for _, seed in samples),
        settings={
            "model": fingerprint(pipe),
            "pipeline_class": type(pipe).__name__,
            "scheduler": type(pipe.scheduler).__name__,
            "dtype": str(pipe.transformer.dtype).removeprefix("torch."),
            "device": pipe.transformer.device.type,
            "steps": steps,
            "guidance_scale": guidance_scale,
            "batch_size": batch_size,
            "height": images.shape[-3],
            "width": images.shape[-2],
            **({"num_frames": images.shape[2]} if images.ndim == 6 else {}),
            "spec": chosen.model_dump(mode="json", exclude={"evidence"}) if chosen else None,
        },
    )


def default_mode(spec: Steering | None) -> str:
    """With CFG, and with the spec where there is one: a spec that is given is never left out silently."""
    return all_modes(spec)[-1]


def all_modes(spec: Steering | None) -> tuple[str, ...]:
    """Every mode that can be had with this spec."""
    tags = [tag for tag, kind in STEERED.items() if isinstance(spec, kind)]
    # Without CFG there is no uncond pass, so a spec of it alone would do nothing.
    alone = [] if isinstance(spec, StasSpec) and "cond" not in spec.branches else tags
    return ("plain", "cfg", *alone, *(f"cfg+{tag}" for tag in tags))


def defaults(spec: Steering | None, steps: int | None = None, guidance_scale: float | None = None) -> tuple[int, float]:
    """Return steps and CFG scale: what is given, else what the spec recommends, else 20 and 4."""
    recommended = spec.recommended if spec else None
    if guidance_scale is None:
        # A recording without CFG recommends s <= 1, which is no scale for the modes with CFG.
        guidance_scale = max((recommended and recommended.guidance_scale) or 0.0, 1.0)
        guidance_scale = guidance_scale if guidance_scale > 1 else 4.0
    return steps if steps is not None else (recommended and recommended.steps) or 20, guidance_scale


def sizes_of(spec: Any, **given: int | None) -> dict[str, int | None]:
    """Height, width and num_frames: what is given, else what a spec of STAS recommends."""
    if not isinstance(spec, StasSpec):
        return given
    return {key: getattr(spec.recommended, key) if value is None else value for key, value in given.items()}


@contextlib.contextmanager
def _steered(mode: str, spec: Steering | None, pipe: Any, strict: bool) -> Iterator[None]:
    if method_of(mode) and spec is not None:
        with apply(spec, pipe, strict=strict):
            yield
    else:
        yield


def method_of(mode: str) -> str:
    """Which of `STEERED` a mode applies; empty for none."""
    return next((part for part in mode.split("+") if part in STEERED), "")


@contextlib.contextmanager
def silent(pipe: Any) -> Iterator[None]:
    """Turn the pipeline's own progress bar off, and back to what it was."""
    before = dict(vars(pipe))
    pipe.set_progress_bar_config(disable=True)
    try:
        yield
    finally:
        if "_progress_bar_config" in before:
            pipe._progress_bar_config = before["_progress_bar_config"]
        else:
            del pipe._progress_bar_config


def _spec(spec: Any, modes: tuple[str, ...]) -> Steering | None:
    if spec is not None and not isinstance(spec, DetailGuidanceSpec | StasSpec):
        raise SpecError(f"a {type(spec).__name__} is no spec that can be applied; load one with `load_spec(path)`.")
    for mode in modes:
        tag = method_of(mode)
        if tag and spec is None:
            raise SpecError(
                f"the mode {mode} needs a spec. Derive one with `workbench derive {tag} STORE --out spec.json` and pass it as spec=."
            )
        if tag and not isinstance(spec, STEERED[tag]):
            valid = ", ".join(all_modes(spec))
            raise SpecError(f"the mode {mode} needs another spec than a {type(spec).__name__}; with this one: {valid}.")
        if tag and mode not in all_modes(spec):
            valid = ", ".join(all_modes(spec))
            raise SpecError(
                f"the mode {mode} has no uncond pass, and the spec changes that alone, so it would do nothing; with this one: {valid}."
            )
    return spec


def _modes(modes: str | Sequence[str]) -> tuple[str, ...]:
    names = (modes,) if isinstance(modes, str) else tuple(modes)
    unknown = [name for name in names if name not in MODES]
    if unknown or not names or len(set(names)) < len(names):
        raise WorkbenchError(f"modes {list(names)} can't be used; give each at most once, of {', '.join(MODES)}.")
    return names


def distinct_prompts(prompts: str | Sequence[str]) -> list[str]:
    """Return the prompts as a list, or say what is wrong with them."""
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not texts or any(not isinstance(text, str) or not text.strip() for text in texts):
        raise WorkbenchError('There are no prompts, or an empty one. Give at least one text, such as "red apple".')
    _each_once("prompt", texts)
    return texts


def distinct_seeds(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds as a list of int, or say what is wrong with them."""
    given = [seeds] if isinstance(seeds, (Integral, str)) or not isinstance(seeds, Iterable) else list(seeds)
    wrong = [seed for seed in given if not isinstance(seed, Integral)]
    if wrong:
        raise WorkbenchError(f"seed {wrong[0]!r} is not a whole number. Give whole numbers, such as seeds=[0, 1].")
    numbers = [int(seed) for seed in given]
    if not numbers or min(numbers) < 0 or max(numbers) >= 1 << 63:
        raise WorkbenchError(
            "There are no seeds, or one is negative or has more than 63 bits. Give at least one number."
        )
    _each_once("seed", numbers)
    return numbers


def _each_once(what: str, values: Sequence[Any]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise WorkbenchError(
            f"The same {what} is given more than once: {twice}. Equal samples are no independent evidence."
        )


def check_pipeline(pipe: Any) -> None:
    """Raise WorkbenchError if a pipeline gives no images or videos, or not those of the plain model."""
    if getattr(pipe, "vae", None) is None:
        raise WorkbenchError("the pipeline has no VAE, so there would be no images; load the whole pipeline.")
    refuse_altered(pipe, "images")


def check_images(pipe: Any) -> None:
    """Raise UnsupportedModelError if a pipeline makes videos, for what measures single pictures."""
    if makes_videos(pipe):
        raise UnsupportedModelError(
            f"{type(pipe).__name__} makes videos, and what is tried out here is measured on single pictures. Give a pipeline of "
            "images; for videos there are `workbench.sample` and `workbench.stas_trial`."
        )


def check_videos(pipe: Any) -> None:
    """Raise UnsupportedModelError if a pipeline makes no videos."""
    if not makes_videos(pipe):
        raise UnsupportedModelError(
            f"{type(pipe).__name__} makes images, and what is tried out here has frames. Give a pipeline of videos, such as a "
            "WanPipeline."
        )


def check_numbers(steps: int, scale: float, batch_size: int, modes: Sequence[str]) -> None:
    """Raise WorkbenchError if a number can't be used, or the scale of a mode with CFG is none."""
    if steps < 1 or batch_size < 1:
        raise WorkbenchError(f"steps = {steps} and batch_size = {batch_size} must be at least 1.")
    if any("cfg" in mode for mode in modes) and not 1 < scale < float("inf"):
        raise WorkbenchError(
            f"guidance_scale = {scale} is no CFG: that needs more than 1. For no CFG, use the modes plain, dg and stas."
        )


def _check_finite(latents: np.ndarray, modes: tuple[str, ...], samples: list[tuple[str, int]]) -> None:
    bad = ~np.isfinite(latents).all(axis=tuple(range(2, latents.ndim)))
    if bad.any():
        mode, index = (int(i[0]) for i in np.nonzero(bad))
        prompt, seed = samples[index]
        raise WorkbenchError(
            f"{bad.sum()} of {bad.size} results are not finite, the first for {prompt!r}, seed {seed}, in mode "
            f"{modes[mode]}. Lower the weight or the guidance scale, or use float32 instead of float16."
        )
