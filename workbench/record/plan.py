"""Bytes before bytes: what a recording will take, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from workbench.record.cells import Cell, cells_of
from workbench.record.probe import Shape
from workbench.record.reduce import RANKS
from workbench.record.settings import Settings
from workbench.store.create import chunk_shapes
from workbench.store.schema import BY_NAME, dims_of, stored

#: Timesteps of one sample are written together up to this many bytes: few files for small models, and flat memory.
BLOCK_BYTES = 4 << 20
#: Above this many bytes a step, full hidden states are written visit by visit.
PLANE_BYTES = 32 << 20

#: For the estimate of time only.
_DISK_BYTES_PER_SECOND = 400e6
_RECORDING_OVERHEAD = 1.1


@dataclass(frozen=True)
class Plan:
    """What will be recorded, where each byte goes.

    Attributes
    ----------
    layers, branches : tuple of str
        Recorded ones, in order.
    steps : tuple of int
        Denoising step of every recorded timestep.
    cells : tuple of Cell
        What every recorded timestep of an experiment is; empty for a trajectory.
    sizes : dict
        Dimension → length.
    variables, chunks : dict
        Variable → shape, and → chunk shape.
    hidden_dtype : str
        dtype of the hidden states, as torch names it.
    block : int
        Recorded timesteps that are written together.
    planes : bool
        True if ``hidden`` goes visit by visit.
    seconds : float
        Estimate for generating and writing, as if no sample shared a call; 0 if the probe was not timed.
    """

    layers: tuple[str, ...]
    branches: tuple[str, ...]
    steps: tuple[int, ...]
    sizes: dict[str, int]
    variables: dict[str, tuple[int, ...]]
    chunks: dict[str, tuple[int, ...]]
    hidden_dtype: str
    block: int
    planes: bool
    seconds: float
    cells: tuple[Cell, ...] = ()

    def bytes_of(self, name: str) -> int:
        """Bytes of one variable, uncompressed, which is how it is stored."""
        return prod(self.variables[name]) * itemsize(name, self.hidden_dtype)

    @property
    def bytes(self) -> int:
        """Bytes of the whole recording."""
        return sum(self.bytes_of(name) for name in self.variables)

    @property
    def files(self) -> int:
        """Chunk files of the whole recording (metadata and coordinates come on top: about forty)."""
        return sum(
            prod(ceil(length / step) for length, step in zip(self.variables[name], self.chunks[name], strict=True))
            for name in self.variables
        )


def make_plan(settings: Settings, shape: Shape, image: tuple[int, ...] | None) -> Plan:
    """Plan a recording.

    Parameters
    ----------
    settings : Settings
    shape : Shape
        From :func:`~workbench.record.probe.probe`.
    image : (height, width) or (frames, height, width) or None
        Of the decoded image or video; None if the pipeline has no VAE.
    """
    select = settings.select
    layers = tuple(shape.layers[i] for i in select.positions("layer", shape.layers))
    branches = tuple(shape.branches[i] for i in select.positions("branch", shape.branches))
    cells = cells_of(settings, len(shape.timesteps))
    steps = tuple(cell.step for cell in cells) or tuple(
        select.positions("timestep", [f"{t:g}" for t in shape.timesteps])
    )
    sizes = {
        "sample": len(settings.samples), "branch": len(branches), "layer": len(layers), "timestep": len(steps),
        "token": shape.tokens, "channel": shape.channels, "rank": min(RANKS, shape.channels),
        "modulation_term": len(shape.terms), "embedding": shape.embedding,
        "rgb": 3,
    }  # fmt: skip
    latent_dims = dims_of("latent_initial", 1 + len(shape.latent))
    image_dims = dims_of("image", 2 + len(image)) if image else ()
    sizes |= dict(zip(latent_dims[1:], shape.latent, strict=True))
    sizes |= dict(zip(image_dims[1:-1], image or (), strict=True))
    dims = {name: variable.dims for name, variable in BY_NAME.items()}
    dims |= {"latent_initial": latent_dims, "latent_final": latent_dims, "image": image_dims}
    skipped = ({"hidden"} if settings.tier == "stats" else set()) | (set() if image else {"image"})
    skipped |= set() if shape.token_timesteps else {"token_timestep"}
    skipped |= (set() if shape.terms else {"modulation"}) | (set() if shape.embedding else {"temb"})
    variables = {name: tuple(sizes[dim] for dim in dims[name]) for name in BY_NAME if name not in skipped}
    per_step = {
        name: prod(variables[name]) // (sizes["sample"] * sizes["timestep"]) * itemsize(name, shape.dtype)
        for name in variables
        if BY_NAME[name].part in ("unit", "step")
    }
    planes = per_step.get("hidden", 0) > PLANE_BYTES
    together = sum(count for name, count in per_step.items() if not (planes and name == "hidden"))
    block = int(np.clip(BLOCK_BYTES // max(together, 1), 1, len(steps)))
    plan = Plan(
        layers, branches, steps, sizes, variables, chunk_shapes(sizes, variables, block, planes), shape.dtype, block,
        planes, 0.0, cells,
    )  # fmt: skip
    # A cell makes only the calls whose branch is recorded; the generation before it needs all of them.
    calls = len(shape.timesteps) * shape.calls + len(cells) * min(shape.calls, len(branches))
    seconds = sizes["sample"] * calls * shape.seconds * _RECORDING_OVERHEAD + plan.bytes / _DISK_BYTES_PER_SECOND
    return Plan(**{**plan.__dict__, "seconds": seconds})


def itemsize(name: str, hidden_dtype: str) -> int:
    """Bytes of one element of a variable as stored."""
    return np.dtype(stored(name, hidden_dtype)[1]).itemsize
