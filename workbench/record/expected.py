"""What a recording of a preset will take, from its configuration alone: no weights, no forward pass, no download."""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench.models.grid import patch_of
from workbench.models.preset import Preset
from workbench.record.probe import Shape


def expected_shape(preset: Preset, dtype: str = "bfloat16") -> Shape:
    """What :func:`~workbench.record.probe.probe` will find at the preset's default size and steps.

    Parameters
    ----------
    preset : Preset
    dtype : str
        That the model will run in.
    """
    layout = preset.layout
    transformer: Any = preset.transformer()
    frames = (preset.frames - 1) // layout.causal_time + 1 if layout.is_video else 1
    size = (frames, preset.height // preset.pixels, preset.width // preset.pixels)
    first, second, third = (
        length // patch for length, patch in zip(size, patch_of(layout.latents, transformer), strict=True)
    )
    config = transformer.config
    channels = int(config["in_channels"])
    packed = layout.latents.axes == "BNC"
    width = layout.width_of(transformer)
    guidance = preset.entry.guidance
    return Shape(
        layers=["input", *layout.block_paths(transformer)],
        grid=(first, second, third),
        channels=width,
        # Only CogVideoX embeds the timestep in another width than that of its tokens.
        embedding=int(config.get("time_embed_dim", width)) if layout.timestep.embedding else 0,
        terms=layout.terms,
        branches=preset.branches,
        dtype=dtype,
        latent=(first * second * third, channels) if packed else (channels, *size[0 if layout.is_video else 1 :]),
        timesteps=np.arange(preset.steps, 0, -1, dtype=float),
        sigmas=np.arange(preset.steps, 0, -1) / preset.steps,
        calls=1 if guidance is None else guidance.calls(preset.branches),
        token_timesteps=preset.entry.token_timesteps or bool((preset.settings or {}).get("expand_timesteps")),
    )


def image_of(preset: Preset) -> tuple[int, ...]:
    """Size of what is decoded, as `make_plan` takes it."""
    size = (preset.height, preset.width)
    return (preset.frames, *size) if preset.layout.is_video else size
