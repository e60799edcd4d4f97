"""What an experiment consists of: the grid of steps, and its cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.errors import RecordingError, SelectionError
from workbench.record.exchange import PARTS
from workbench.record.settings import Settings
from workbench.select import resolve


@dataclass(frozen=True)
class Cell:
    """One forward pass.

    Attributes
    ----------
    step : int
        Denoising step whose latents, texts and other arguments go in.
    embedding_step : int
        Denoising step whose timestep is put in the place of its own.
    swap : {"none", "embedding", "gate", "shift_scale", "modulation"}
        Nothing (both steps are equal); the argument `timestep`; or these parts of the modulation, in one block only.
    block : str
        That block's full module path; empty for the first two.
    """

    step: int
    embedding_step: int
    swap: str = "none"
    block: str = ""


def grid_steps(grid: int | tuple[int, ...], total: int) -> tuple[int, ...]:
    """Denoising steps of a grid.

    Parameters
    ----------
    grid : int or tuple of int
        A number of steps, spread evenly with both ends; or the steps themselves.
    total : int
        Steps of the trajectory.

    Raises
    ------
    RecordingError
        If there are fewer than two, the same one twice, or one that the trajectory doesn't have.
    """
    valid = f"The trajectory has steps 0 to {total - 1}"
    if isinstance(grid, int):
        if not 2 <= grid <= total:
            raise RecordingError(
                f"A grid of {grid} steps can't be used. {valid}: take 2 to {total} of them. With fewer than two there is "
                "nothing to exchange."
            )
        return tuple(int(step) for step in np.round(np.linspace(0, total - 1, grid)))
    outside = [step for step in grid if not 0 <= step < total]
    if outside or len(set(grid)) < max(2, len(grid)):
        wrong = f"steps {outside} are outside" if outside else "it needs at least two, each once"
        raise RecordingError(f"The grid {list(grid)} can't be used: {wrong}. {valid}.")
    return tuple(sorted(grid))


def cells_of(settings: Settings, total: int) -> tuple[Cell, ...]:
    """The cells of an experiment: first the diagonal, then exchanged embeddings, then mediation block by block.

    Parameters
    ----------
    settings : Settings
        With the blocks of `mediate` resolved (:func:`resolve_mediate`).
    total : int
        Steps of the trajectory.
    """
    if settings.experiment is None or settings.grid is None:
        return ()
    steps = grid_steps(settings.grid, total)
    cells = [Cell(step, step) for step in steps]
    if settings.experiment == "timestep-swap":
        pairs = [(step, other) for step in steps for other in steps if step != other]
        cells += [Cell(step, other, "embedding") for step, other in pairs]
        cells += [
            Cell(step, other, what, str(block))
            for block in settings.mediate or ()
            for what in PARTS
            for step, other in pairs
        ]
    return tuple(cells)


def resolve_mediate(settings: Settings, blocks: list[str]) -> Settings:
    """Put full module paths in the place of what the user gave as `mediate`.

    Raises
    ------
    RecordingError
        If the model has no such block.
    """
    if settings.mediate is None:
        return settings
    try:
        picked = resolve(settings.mediate, "block", blocks)
    except SelectionError as error:
        raise RecordingError(f"mediate = {settings.mediate!r} can't be used: {error}") from error
    return settings.model_copy(update={"mediate": tuple(blocks[i] for i in picked)})
