"""Videos whose frame hierarchy is known because it was planted: as recordings of random numbers, and as real pipelines.

The recordings (`video_recording`) are what error rates are measured on. Image content is in them: what the tokens of a frame
hold depends on place, in every prompt in another way and in all prompts in common (a subject in the middle), it moves from
frame to frame, and prompts differ in how large each contrast is. `Truth` says what is planted on top.

The pipelines (`planted_wan`) are tiny, randomly initialised `WanPipeline`s in which one block adds to chosen channels what
depends on the token's place in the sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr

from tests.reduce_reference import text, to_dataset
from tests.tiny_wan import tiny_wan
from workbench.roles import roles_of_grid, with_roles

GRID = (5, 6, 6)
CHANNELS, MASSIVE, SIZE = 24, {3: +1, 17: -1}, 12.0
FIRST, BOUNDARY = 0.5, 0.25
"""ln units by which the first frame and the boundary are raised over the interior, where nothing else is said."""


@dataclass(frozen=True)
class Truth:
    """What is planted, in ln units of |h|.

    Attributes
    ----------
    first, boundary : float
        Of the massive channels: first frame and boundary tokens over interior tokens.
    edges : float
        Of all channels: tokens in the first and last row *and* column of every frame, the first one too.
    rows : float
        Of all channels: tokens in the first and last row of every frame, the first one too (sky and ground).
    columns : float
        Of all channels: tokens in the first and last column of every frame, the first one too (a tall subject, if below 0).
    first_everywhere : float
        Of all channels: the first frame, which encodes one pixel frame and has other statistics.
    drift : float
        Of all channels: from the first to the last frame, along a straight line, falling.
    curve : float
        Of all channels: a drift that is no straight line, curve in the first frame.
    falls : float
        By what factor the curve falls off from frame to frame.
    early : float
        Factor of `first` and `boundary` at the noisiest step; it goes to 2 - early at the last one.
    """

    first: float = 0.0
    boundary: float = 0.0
    edges: float = 0.0
    rows: float = 0.0
    columns: float = 0.0
    first_everywhere: float = 0.0
    drift: float = 0.0
    curve: float = 0.0
    falls: float = float(np.e)
    early: float = 1.0


TRUTHS: dict[str, Truth] = {
    "all three levels": Truth(first=FIRST, boundary=BOUNDARY),
    "first frame only": Truth(first=FIRST),
    "boundary only": Truth(boundary=BOUNDARY),
    "image edges, not boundaries": Truth(edges=BOUNDARY),
    "none": Truth(),
}
"""By what the analysis should say."""


@dataclass(frozen=True)
class Spread:
    """How much prompts and tokens differ, in ln units.

    Attributes
    ----------
    level, own : float
        Standard deviation over prompts: of the level, and of each planted contrast and of each contrast that could be one
        (first frame, rows, columns).
    content : float
        Of what a prompt shows, over places; half of it moves from frame to frame.
    token : float
        Of single tokens.
    middle : float
        By how much the middle of the frame holds less than its corners, in all prompts (a subject before a background
        would be above 0; the fall from the centre is the same along rows and columns).
    """

    level: float = 0.3
    own: float = 0.08
    content: float = 0.15
    token: float = 0.1
    middle: float = 0.05
    tails: str = "normal"


@dataclass(frozen=True)
class Size:
    """Extent of a recording."""

    prompts: int = 8
    seeds: int = 1
    blocks: int = 3
    steps: int = 4
    grid: tuple[int, int, int] = field(default=GRID)
    width: int = 6
    channels: int = CHANNELS
    massive: dict[int, int] = field(default_factory=lambda: dict(MASSIVE))


def video_recording(
    truth: Truth | None = None, *, size: Size | None = None, spread: Spread | None = None, seed: int = 0
) -> xr.Dataset:
    """A recording as in `docs/schema.md`, one branch, tier full, with two massive channels among ordinary ones."""
    truth, size, spread = truth or Truth(), size or Size(), spread or Spread()
    frame, row, column = np.indices(size.grid).reshape(3, -1)
    recording = to_dataset(
        hidden_states(truth, size, spread, seed),
        ranks=3,
        keep_hidden=True,
        prompts=[f"prompt {i}" for i in range(size.prompts) for _ in range(size.seeds)],
        seeds=list(range(size.seeds)) * size.prompts,
    )
    recording = recording.assign_coords(frame=("token", frame), row=("token", row), column=("token", column))
    recording = recording.assign_coords(layer=text(["input", *(f"blocks.{i}" for i in range(size.blocks))]))
    return with_roles(recording, size.width)


def hidden_states(truth: Truth, size: Size, spread: Spread, seed: int) -> np.ndarray:
    """The states of a recording: sample, branch (one), layer (`input` first), timestep, token, channel; float32."""
    rng = np.random.default_rng(seed)
    (frames, rows, columns), n, steps = size.grid, size.prompts * size.seeds, size.steps
    frame, row, column = np.indices(size.grid).reshape(3, -1)
    role = roles_of_grid(size.grid, size.width)
    edge_row, edge_column = (row == 0) | (row == rows - 1), (column == 0) | (column == columns - 1)
    is_first, is_boundary = role == "first", role == "boundary"
    own = [_own(rng, size, spread)[:, None] for _ in range(4)]
    # per sample and token: what all channels have in common
    far = np.maximum(np.abs(2 * row / (rows - 1) - 1), np.abs(2 * column / (columns - 1) - 1))
    image = spread.middle * far + _content(rng, n, size, spread)
    image = image + own[2] * edge_row + own[3] * edge_column
    image = image + truth.edges * (edge_row | edge_column) + truth.first_everywhere * is_first
    image = image - truth.drift * frame / (frames - 1) + truth.curve * truth.falls ** -frame.astype(float)
    image = image + truth.rows * edge_row + truth.columns * edge_column
    at_first, at_boundary = (_over_steps(rng, o, steps) for o in own[:2])
    factor = np.linspace(truth.early, 2.0 - truth.early, steps) if steps > 1 else np.ones(1)
    planted = (truth.first * factor + at_first)[:, :, None] * is_first
    planted = planted + (truth.boundary * factor + at_boundary)[:, :, None] * is_boundary
    scale = np.exp(0.3 * rng.standard_normal(size.channels))
    shape = (n, 1, size.blocks + 1, steps, len(frame), size.channels)
    h = rng.standard_normal(shape) * scale * np.exp(image)[:, None, None, None, :, None]
    level = np.repeat(rng.standard_normal(size.prompts), size.seeds) * spread.level
    for channel, sign in size.massive.items():
        logs = image[:, None, None, :] + planted[:, None]
        noise = spread.token * rng.standard_normal((n, size.blocks, steps, len(frame)))
        layers = 0.1 * np.arange(size.blocks)[:, None, None] + 0.2 * np.linspace(1, 0, steps)[:, None]
        h[:, 0, 1:, :, :, channel] = sign * SIZE * np.exp(logs + noise + layers + level[:, None, None, None])
    return h.astype(np.float32)


def _own(rng: np.random.Generator, size: Size, spread: Spread) -> np.ndarray:
    """One number a sample, mean 0: mostly the prompt's, a little the seed's."""

    def draw(count: int) -> np.ndarray:
        if spread.tails == "skewed":
            return rng.exponential(size=count) - 1.0
        return rng.standard_normal(count)

    return spread.own * (np.repeat(draw(size.prompts), size.seeds) + 0.3 * draw(size.prompts * size.seeds))


def _over_steps(rng: np.random.Generator, own_S1: np.ndarray, steps: int) -> np.ndarray:
    """What a sample has of its own in a contrast, half of it along the steps; shape (S, T)."""
    along = rng.permutation(own_S1) * np.linspace(1.0, -1.0, steps)
    return own_S1 + along


def _content(rng: np.random.Generator, n: int, size: Size, spread: Spread) -> np.ndarray:
    """What a prompt shows: waves over the frame, half of which move on from frame to frame; shape (S, tokens)."""
    frame, row, column = np.indices(size.grid).reshape(3, -1)
    out = np.zeros((n, len(frame)))
    for moves in (0.0, 1.0):
        for _ in range(3):
            a, b, phase, speed = rng.uniform(-1, 1, (4, n, 1)) * np.asarray([3.0, 3.0, np.pi, 0.7])[:, None, None]
            wave = a * row / size.grid[1] + b * column / size.grid[2] + phase + moves * speed * frame
            out += spread.content / np.sqrt(3.0) * np.cos(wave)
    return out


WAN_SIZE = {"height": 96, "width": 96, "num_frames": 17}
"""Of a `planted_wan`: token grid `GRID`."""


class Added(torch.nn.Module):
    """Adds to chosen channels of every token what its place in the sequence says."""

    def __init__(self, amounts_N: torch.Tensor, channels: dict[int, int], width: int) -> None:
        super().__init__()
        signs = torch.zeros(width)
        for channel, sign in channels.items():
            signs[channel] = sign
        self.register_buffer("amounts", amounts_N[:, None] * signs)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states + self.amounts.to(states.dtype)


def planted_wan(truth: Truth, *, seed: int = 0, width: int = GRID[2]) -> Any:
    """A `WanPipeline` whose first block writes massive activations that follow `truth` into channels `MASSIVE`.

    What is written goes through the block's cross-attention, whose output no gate multiplies.
    """
    pipe = tiny_wan(seed=seed)
    role = roles_of_grid(GRID, width)
    _, row, column = np.indices(GRID).reshape(3, -1)
    edge = np.isin(row, (0, GRID[1] - 1)) | np.isin(column, (0, GRID[2] - 1))
    logs = truth.first * (role == "first") + truth.boundary * (role == "boundary") + truth.edges * edge
    amounts = torch.tensor(SIZE * np.exp(logs + truth.first_everywhere * (role == "first")), dtype=torch.float32)
    attention = pipe.transformer.blocks[0].attn2
    channels = pipe.transformer.config.num_attention_heads * pipe.transformer.config.attention_head_dim
    attention.to_out.append(Added(amounts, MASSIVE, channels))
    output = attention.to_out[1]
    attention.to_out[1] = torch.nn.Sequential(output, attention.to_out[2])
    del attention.to_out[2]
    return pipe
