"""What a recording is: its dimensions and variables, as data. ``docs/schema.md`` is the same in prose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

FORMAT = "dit-workbench/recording"
SCHEMA_VERSION = 1

#: Markers are 0 where nothing is, else this plus a CRC-32, so that a CRC of 0 still says "present".
PRESENT = 1 << 32

#: A bfloat16 NaN: what a chunk of bit patterns reads as when it was never written.
BF16_NAN = 0x7FC0

#: Ending of the file in which zarr builds a chunk before it gives it its name; a killed run may leave one, it holds nothing.
PARTIAL = ".partial"

UNIT = ("sample", "branch", "layer", "timestep")

#: What a recording with the attribute ``experiment`` may be.
EXPERIMENTS = ("timestep-swap", "prompt-swap", "seed-swap")


@dataclass(frozen=True)
class Variable:
    """One array of a recording.

    Attributes
    ----------
    name, dims, dtype
        As xarray shows them. ``dtype`` of ``hidden`` follows the model.
    fill : float or int
        What reads where nothing was written.
    part : str
        ``"unit"`` if it belongs to a visit's unit, ``"step"`` if to the visits of one branch and timestep (it is kept
        with the unit of the first layer), ``"sample"`` if it is written once a sample.
    long_name : str
        For the array's attributes.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    fill: float
    part: str
    long_name: str


_NAN = float("nan")

#: In the order in which a unit's bytes go into its checksum.
VARIABLES: tuple[Variable, ...] = (
    Variable("hidden", (*UNIT, "token", "channel"), "float32", _NAN, "unit", "hidden state h"),
    Variable("h_mean_abs", (*UNIT, "channel"), "float32", _NAN, "unit", "mean over tokens of |h|"),
    Variable("h_mean", (*UNIT, "channel"), "float32", _NAN, "unit", "mean over tokens of h"),
    Variable("h_max_abs", (*UNIT, "channel"), "float32", _NAN, "unit", "maximum over tokens of |h|"),
    Variable("h_std", (*UNIT, "channel"), "float32", _NAN, "unit", "standard deviation over tokens of h"),
    Variable("h_norm", (*UNIT, "token"), "float32", _NAN, "unit", "L2 norm of h over channels"),
    Variable("h_top_abs", (*UNIT, "token", "rank"), "float32", _NAN, "unit", "largest |h| of the token"),
    Variable("h_top_channel", (*UNIT, "token", "rank"), "int32", -1, "unit", "channel of the largest |h|"),
    Variable("modulation", (*UNIT, "modulation_term", "channel"), "float32", _NAN, "unit", "AdaLN modulation"),
    Variable("temb", ("sample", "branch", "timestep", "embedding"), "float32", _NAN, "step", "modulation embedding"),
    Variable("token_timestep", ("sample", "branch", "timestep", "token"), "float32", _NAN, "step", "timestep of the token"),
    Variable("latent_initial", ("sample", "latent_channel", "latent_y", "latent_x"), "float32", _NAN, "sample",
             "initial latents"),
    Variable("latent_final", ("sample", "latent_channel", "latent_y", "latent_x"), "float32", _NAN, "sample",
             "final latents"),
    Variable("image", ("sample", "y", "x", "rgb"), "uint8", 0, "sample", "decoded image"),
    Variable("unit_checksum", UNIT, "uint64", 0, "marker", "2^32 + CRC-32 of the unit, 0 = absent"),
    Variable("sample_checksum", ("sample",), "uint64", 0, "marker", "2^32 + CRC-32 of latents and image, 0 = absent"),
)  # fmt: skip

BY_NAME: dict[str, Variable] = {variable.name: variable for variable in VARIABLES}

#: coordinate → (dimension, dtype). Coordinates named like their dimension are its index.
COORDINATES: dict[str, tuple[str, str]] = {
    "sample": ("sample", "int64"),
    "prompt": ("sample", "str"),
    "seed": ("sample", "int64"),
    "branch": ("branch", "str"),
    "layer": ("layer", "str"),
    "block": ("layer", "int64"),
    "timestep": ("timestep", "float64"),
    "step": ("timestep", "int64"),
    "sigma": ("timestep", "float64"),
    "token": ("token", "int64"),
    "frame": ("token", "int64"),
    "row": ("token", "int64"),
    "column": ("token", "int64"),
    "channel": ("channel", "int64"),
    "rank": ("rank", "int64"),
    "modulation_term": ("modulation_term", "str"),
}

#: Further coordinates of an experiment, where ``timestep`` lists its cells.
EXPERIMENT_COORDINATES: dict[str, tuple[str, str]] = {
    "embedding_timestep": ("timestep", "float64"),
    "embedding_sigma": ("timestep", "float64"),
    "swap": ("timestep", "str"),
    "swap_block": ("timestep", "str"),
    "latent_prompt": ("sample", "str"),
    "latent_seed": ("sample", "int64"),
}

#: Further coordinate of a video whose tokens have roles (`workbench.roles`); its width is the attribute `boundary_width`.
VIDEO_COORDINATES: dict[str, tuple[str, str]] = {"role": ("token", "str")}

#: Other dimensions that a variable may have: for a video, and where a latent is a row a token.
OTHER_DIMS: dict[str, tuple[tuple[str, ...], ...]] = dict.fromkeys(
    ("latent_initial", "latent_final"),
    (("sample", "latent_channel", "latent_frame", "latent_y", "latent_x"), ("sample", "token", "latent_channel")),
) | {"image": (("sample", "video_frame", "y", "x", "rgb"),)}

#: Root attributes that every recording has.
ATTRIBUTES = (
    "format",
    "schema_version",
    "model_name",
    "model",
    "pipeline_class",
    "layout",
    "scheduler",
    "dtype",
    "tier",
    "settings",
    "settings_fingerprint",
    "versions",
    "git_revision",
    "created",
    "block_steps",
    "variables",
    "coordinates_checksum",
)


def coordinates_of(attributes: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The coordinates that a recording with these root attributes has: name → (dimension, dtype)."""
    known = COORDINATES | (EXPERIMENT_COORDINATES if attributes.get("experiment") else {})
    return known | (VIDEO_COORDINATES if attributes.get("boundary_width") else {})


def dims_of(name: str, rank: int) -> tuple[str, ...]:
    """Dimensions of a variable with so many of them: latents and images of a video have one more."""
    return next((dims for dims in OTHER_DIMS.get(name, ()) if len(dims) == rank), BY_NAME[name].dims)


def stored(name: str, hidden_dtype: str) -> tuple[float, str]:
    """Fill value and dtype of a variable as it lies in the store; bfloat16 as bit patterns."""
    variable = BY_NAME[name]
    if name != "hidden":
        return variable.fill, variable.dtype
    return (BF16_NAN, "uint16") if hidden_dtype == "bfloat16" else (variable.fill, hidden_dtype)


def bf16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Decode bfloat16 bit patterns (uint16, any shape) to float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
