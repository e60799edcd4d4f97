"""The cells of an experiment as a balanced array: prompts × seeds × latents × embeddings.

Legend: P prompts, S seeds, T latents, E embeddings, L layers, C channels.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import xarray as xr

from workbench.analysis.inference import Floats
from workbench.analysis.visits import Visits, require
from workbench.errors import AnalysisError

EXPERIMENTS = ("timestep-swap", "prompt-swap", "seed-swap")

_CELL = ("embedding_timestep", "embedding_sigma", "swap", "swap_block")


def diagonal(experiment: xr.Dataset) -> xr.Dataset:
    """The cells in which nothing was exchanged, as an ordinary recording: the trajectory at the steps of the grid.

    Parameters
    ----------
    experiment : xr.Dataset
        An experiment store, as in `docs/schema.md`; a trajectory is returned as it is.

    Raises
    ------
    AnalysisError
        If the store says that it is an experiment but lacks the coordinates of one.
    """
    if not experiment.attrs.get("experiment"):
        return experiment
    _require_cells(experiment)
    own = np.flatnonzero(_text(experiment["swap"]) == "none")
    plain = experiment.isel(timestep=own)
    plain = plain.drop_vars([n for n in (*_CELL, "latent_prompt", "latent_seed") if n in plain.coords])
    plain.attrs = {key: value for key, value in experiment.attrs.items() if key != "experiment"}
    return plain


def _require_cells(experiment: xr.Dataset) -> None:
    missing = [name for name in _CELL if name not in experiment.coords]
    if missing:
        raise AnalysisError(
            f"the experiment lacks the coordinates {', '.join(missing)}, which say what was exchanged in each cell. Open the "
            "whole store, or record it again with `workbench record MODEL --experiment …`."
        )


def _text(coordinate: xr.DataArray) -> np.ndarray:
    return np.asarray([str(value) for value in coordinate.values], dtype=object)


class Experiment:
    """The cells of one branch of an experiment, of the prompts all of whose samples are complete.

    Parameters
    ----------
    recording : xr.Dataset
        An experiment store.
    branch : str
        Which branch.
    known : sequence of str
        Experiments that the caller can read.

    Attributes
    ----------
    visits : Visits
        Of the samples used.
    prompts, seeds : list
        Levels; every prompt has every seed.
    left_out_prompts : list of str
        Prompts with a sample that is absent, not complete or not finite.
    sigmas, timesteps : array, shape (T,)
        Of the grid, in the order of the trajectory.

    Raises
    ------
    AnalysisError
        If it is no such experiment, or its samples are not prompts × seeds.
    """

    def __init__(self, recording: xr.Dataset, branch: str, known: tuple[str, ...] = EXPERIMENTS[:1]) -> None:
        require(recording, "h_mean_abs")
        visits = Visits(recording, branch, experiments=known)
        _require_cells(recording)
        self.name = str(recording.attrs["experiment"])
        part = visits.recording
        pairs = list(zip(_text(recording["prompt"]), (int(s) for s in recording["seed"].values), strict=True))
        wanted = list(dict.fromkeys(pair[0] for pair in pairs))
        seeds = list(dict.fromkeys(pair[1] for pair in pairs))
        there = {
            pair: i
            for i, pair in enumerate(zip(_text(part["prompt"]), (int(s) for s in part["seed"].values), strict=True))
        }
        self.prompts = [prompt for prompt in wanted if all((prompt, seed) in there for seed in seeds)]
        self.seeds = seeds
        self.left_out_prompts = [prompt for prompt in wanted if prompt not in self.prompts]
        if not self.prompts:
            raise AnalysisError(
                f"no prompt has a complete, finite sample for each of the {len(seeds)} seeds of the experiment, and the "
                "variance can be split only where every prompt has every seed. Run the same `workbench record` command again "
                "to finish it, or record with the same seeds for all prompts."
            )
        self.at_PS = np.asarray([[there[prompt, seed] for seed in seeds] for prompt in self.prompts])
        kept = np.sort(self.at_PS.ravel())
        if len(kept) < visits.n:
            labels = [visits.samples[i] for i in kept]
            visits = Visits(
                recording.isel(sample=np.isin(recording["sample"].values, labels)), branch, experiments=known
            )
            self.at_PS = np.searchsorted(kept, self.at_PS)
        self.visits = visits
        cells = visits.recording
        self.swap, self.swap_block = _text(cells["swap"]), _text(cells["swap_block"])
        own = np.flatnonzero(self.swap == "none")
        own = own[np.argsort(cells["step"].values[own], kind="stable")]
        self.own_T = own
        self.timesteps = np.asarray(cells["timestep"].values[own], dtype=np.float64)
        self.sigmas = np.asarray(cells["sigma"].values[own], dtype=np.float64)

    def position(self, timestep: float, what: str) -> int:
        """Position in the grid of a timestep.

        Raises
        ------
        AnalysisError
            If it has no cell in which nothing was exchanged.
        """
        near = np.flatnonzero(np.isclose(self.timesteps, timestep, rtol=1e-6, atol=1e-6))
        if len(near) != 1:
            raise AnalysisError(
                f"{what} {timestep:g} of a cell is not in the grid of the experiment ({', '.join(f'{t:g}' for t in self.timesteps)}); "
                "open the whole store instead of a part of it."
            )
        return int(near[0])

    @cached_property
    def cells_TE(self) -> np.ndarray:
        """Position along `timestep` of the cell with each latent and embedding.

        Raises
        ------
        AnalysisError
            If the grid has one timestep only, or is not complete.
        """
        size = len(self.timesteps)
        if size < 2:
            raise AnalysisError(
                f"the grid of the experiment has {size} timestep{'s' if size != 1 else ''}; to exchange an embedding for another "
                "it takes at least two, and five show a curve. Record with --grid 5."
            )
        table = np.full((size, size), -1)
        table[np.arange(size), np.arange(size)] = self.own_T
        cells = self.visits.recording
        for i in np.flatnonzero(self.swap == "embedding"):
            latent = self.position(float(cells["timestep"].values[i]), "the latent's timestep")
            embedding = self.position(float(cells["embedding_timestep"].values[i]), "the embedding's timestep")
            table[latent, embedding] = i
        if (table < 0).any():
            absent = int((table < 0).sum())
            raise AnalysisError(
                f"{absent} of {table.size} cells of the grid are not in the recording, and the variance can be split only if all "
                "are. Open the whole store, or run the same `workbench record` command again."
            )
        return table

    def logs(self, at: np.ndarray, channels: np.ndarray | None) -> Floats:
        """The ln of mean |h| in some cells, of channels by position (None: of the median channel); (P, S, *at, L, C or 1).

        Raises
        ------
        AnalysisError
            If a magnitude is exactly 0, which has no logarithm.
        """
        source = self.visits.median_SLT1 if channels is None else self.visits.mean_abs_SLTC[..., channels]
        moved = np.moveaxis(source, 2, 1)  # S, timestep, L, C
        values = moved[self.at_PS][:, :, at].astype(np.float64)
        if not (values > 0).all():
            layer, column = np.argwhere(values <= 0)[0][-2:]
            name = (
                "the median channel"
                if channels is None
                else f"channel {int(self.visits.recording['channel'].values[channels[column]])}"
            )
            raise AnalysisError(
                f"mean |h| of {name} is exactly 0 in a cell at {self.visits.layers[int(layer)]}, and 0 has no logarithm; choose "
                "channels that are not dead with channels=…, or layers without them."
            )
        return np.asarray(np.log(values))
