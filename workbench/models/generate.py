"""Run a pipeline on a batch of samples; the one way in which recorder and sampler do it, so that their images are equal."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from workbench.errors import WorkbenchError
from workbench.models.grid import patch_of
from workbench.models.layout import Layout, Pipeline
from workbench.models.mini import default_size
from workbench.models.registry import entry_of, layout_for

#: Turns prompts into the pipeline's arguments (texts, or embeddings computed elsewhere).
Encode = Callable[[Sequence[str]], Mapping[str, Any]]

#: Name under which a steering method hooks into a transformer; here, so that the recorder can see it without knowing more.
STEERING_HOOK = "workbench_steering"


def is_steered(pipe: Any) -> bool:
    """Tell whether a spec or a disruption is being applied to the pipeline right now."""
    registry = getattr(pipe.transformer, "_diffusers_hook", None)
    if registry is not None and STEERING_HOOK in registry.hooks:
        return True
    # A guider puts its hooks on only when the pipeline runs.
    others = [type(getattr(pipe, "guider", None)), *pipe.transformer._forward_pre_hooks.values()]
    return any(getattr(other, "__module__", "").startswith("workbench.steering") for other in others)


def call_defaults(pipe: Any) -> dict[str, Any]:
    """Arguments that every call of this pipeline should have unless the user says otherwise.

    A pipeline may pad its third text encoder far beyond what its tokenizer declares as its own maximum; the tokenizer's
    word is then the right one. Of the embedded models some are far smaller than their pipeline's own size.
    """
    defaults: dict[str, Any] = default_size(str(getattr(pipe, "name_or_path", "")))
    third = getattr(pipe, "tokenizer_3", None)
    if third is not None and third.model_max_length < 256:
        defaults["max_sequence_length"] = int(third.model_max_length)
    return defaults


def call_arguments(
    pipe: Any,
    samples: Sequence[tuple[str, int]],
    *,
    steps: int,
    guidance_scale: float,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
    encode: Encode | None = None,
) -> dict[str, Any]:
    """Arguments of the pipeline for one batch.

    Every sample has a generator of its own, so its noise depends on its seed alone and not on its neighbours.

    Parameters
    ----------
    samples : sequence of (prompt, seed)
    steps, guidance_scale, height, width, num_frames
        As the pipeline takes them; None for its own size. Only pipelines of videos take a number of frames.
    encode : callable, optional
        Gives the arguments that stand for the prompts.

    Raises
    ------
    WorkbenchError
        If the size is not a whole number of tokens, or the pipeline makes no videos.
    """
    prompts = [prompt for prompt, _ in samples]
    generators = [torch.Generator("cpu").manual_seed(seed) for _, seed in samples]
    # One that has no entry (perturbed-attention guidance, say) is called as most are.
    entry = entry_of(pipe, layout_for(pipe, token_timesteps=True)) or Pipeline("", None, scale="guidance_scale")
    scale = entry.guidance.scale if entry.guidance is not None else entry.scale
    size = checked_size(pipe, height=height, width=width, num_frames=num_frames)
    return {
        **call_defaults(pipe),
        **dict(entry.settings),
        **(encode(prompts) if encode else {"prompt": prompts}),
        **{entry.frames if name == "num_frames" else name: value for name, value in size.items()},
        # A list of one is the same numbers, but some pipelines take none.
        "generator": generators if len(samples) > 1 else generators[0],
        "num_inference_steps": steps,
        **({scale: guidance_scale} if scale else {}),
    }


def checked_size(
    pipe: Any, *, height: int | None = None, width: int | None = None, num_frames: int | None = None
) -> dict[str, int]:
    """What is given of a size, as the pipeline takes it.

    Raises
    ------
    WorkbenchError
        If it is not a whole number of tokens, or the pipeline makes no videos.
    """
    size = {name: value for name, value in (("height", height), ("width", width)) if value is not None}
    unit = pixels_a_token(pipe)
    wrong = [f"{key} = {value}" for key, value in size.items() if value < unit or value % unit]
    if wrong:
        raise WorkbenchError(f"{' and '.join(wrong)} must be a multiple of {unit} pixels for this model.")
    if num_frames is not None:
        if not makes_videos(pipe):
            raise WorkbenchError(f"num_frames = {num_frames}, but {type(pipe).__name__} makes images, not videos.")
        layout = layout_for(pipe, token_timesteps=True)
        frames = layout.causal_time
        if num_frames < 1 or num_frames % frames != (1 % frames if layout.first_alone else 0):
            raise WorkbenchError(
                f"num_frames = {num_frames} must be {'1 more than ' if layout.first_alone else ''}a multiple of {frames} for "
                "this model."
            )
        size["num_frames"] = num_frames
    return size


def makes_videos(pipe: Any) -> bool:
    """Whether the pipeline makes videos, and not images."""
    layout = layout_for(pipe, token_timesteps=True)
    entry = entry_of(pipe, layout)
    return layout.is_video and not (entry is not None and entry.still)


def pixels_a_token(pipe: Any) -> int:
    """Pixels that height and width are multiples of: along one side of a token, or of what the pipeline says."""
    layout = layout_for(pipe, token_timesteps=True)
    entry, latents = entry_of(pipe, layout), layout.latents
    if entry is not None and entry.unit:
        return entry.unit
    # Where a pipeline packs latents together itself, its processor counts them in; elsewhere it may count in the patch.
    # What an image encoder gets is prepared by a processor of that name too, which knows nothing of the VAE.
    processors: list[Any] = [getattr(pipe, name, None) for name in ("image_processor", "video_processor")]
    factors = [p.config.vae_scale_factor for p in processors if hasattr(getattr(p, "config", None), "vae_scale_factor")]
    packed = latents.axes == "BNC"
    order = (*factors, *_factors_of_vae(pipe)) if packed else (*_factors_of_vae(pipe), *factors)
    factor = next((int(f) for f in order if f is not None), 8)
    return factor if packed else factor * patch_of(latents, pipe.transformer)[-1]


def _factors_of_vae(pipe: Any) -> list[int | None]:
    return [getattr(pipe, name, None) for name in ("vae_scale_factor_spatial", "vae_scale_factor")]


@dataclass(frozen=True)
class Generated:
    """What a pipeline made of a batch.

    Attributes
    ----------
    initial, latents : array (B, C, H, W), (B, C, F, H, W) or (B, N, C)
        What the scheduler's first step was given, and what its last one left, float32. Check the latter: it may not be finite,
        and the images then mean nothing.
    images : array (B, Y, X, 3) or (B, F, Y, X, 3) of uint8, or None
        None if the pipeline has no VAE, or makes sound.
    """

    initial: np.ndarray
    latents: np.ndarray
    images: np.ndarray | None


def generate(pipe: Any, arguments: Mapping[str, Any], on_step: Callable[[], None] | None = None) -> Generated:
    """Run the pipeline once.

    Parameters
    ----------
    arguments : mapping
        From :func:`call_arguments`.
    on_step : callable, optional
        Called after every denoising step.
    """
    layout, generator = layout_for(pipe, token_timesteps=True), arguments["generator"]
    samples = len(generator) if isinstance(generator, list) else 1
    ends: list[torch.Tensor] = []

    def keep(sample: torch.Tensor, after: torch.Tensor) -> None:
        ends[:] = [ends[0] if ends else sample.clone(), after]
        if on_step is not None:
            on_step()

    decoded = getattr(pipe, "vae", None) is not None and not layout.is_sound
    with stepping(pipe.scheduler, keep):
        result = pipe(**arguments, output_type="np" if decoded else "latent")
    # What is not finite is reported from the latents, by its place; the conversion must not warn about it first.
    images = (np.nan_to_num(np.asarray(result[0])) * 255).round().astype(np.uint8) if decoded else None
    if images is not None and images.ndim == (4 if makes_videos(pipe) else 3):  # a pipeline of one at a time
        images = images[None]
    initial, latents = (as_stored(layout, end, samples).float().cpu().numpy() for end in ends)
    return Generated(initial, latents, images)


def as_stored(layout: Layout, latents: torch.Tensor, samples: int) -> torch.Tensor:
    """Latents of a scheduler's step, channels first, one row a sample: some pipelines step copies for every branch."""
    return layout.latents.channels_first(latents[:samples])


@contextlib.contextmanager
def stepping(scheduler: Any, on_step: Callable[[torch.Tensor, torch.Tensor], None]) -> Iterator[None]:
    """Tell of the latents before and after every step of a scheduler.

    Many pipelines have no callback; each steps its scheduler. Its class must stay what it is, because pipelines ask for it. A
    copy, which some pipelines make, steps itself and is not told of.
    """
    before = vars(scheduler).get("step")
    scheduler.step = _Watched(scheduler, on_step)
    try:
        yield
    finally:
        if before is None:
            del scheduler.step
        else:
            scheduler.step = before


class _Watched:
    """Stands for the ``step`` of one scheduler."""

    def __init__(self, scheduler: Any, on_step: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
        self.scheduler, self.step, self.on_step = scheduler, scheduler.step, on_step
        self.__signature__ = inspect.signature(scheduler.step)  # pipelines ask which arguments it takes

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        sample = kwargs["sample"] if "sample" in kwargs else args[2]
        result = self.step(*args, **kwargs)
        self.on_step(sample, result[0] if isinstance(result, tuple) else result.prev_sample)
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = memo[id(self.scheduler)]
        return type(copied).step.__get__(copied)
