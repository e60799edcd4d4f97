"""What a recording says of the states that enter blocks: by this the controls of a disruption are matched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from workbench.analysis.matching import entering, mean_square
from workbench.analysis.visits import Visits
from workbench.errors import AnalysisError, WorkbenchError
from workbench.steering.disruption import Branches, Disruption, Norms


class States:
    """The states that enter the blocks of a recording."""

    def __init__(self, recording: xr.Dataset, branches: Branches) -> None:
        self.recording = recording
        there = [str(name) for name in np.atleast_1d(recording["branch"].values)]
        self.branches = there if branches == "all" else [branches]
        self.numbers = {
            str(n): int(b) for n, b in zip(recording["layer"].values, recording["block"].values, strict=True)
        }
        known = set(self.numbers.values())
        self.blocks = [name for name, number in self.numbers.items() if number >= 0 and number - 1 in known]
        layout = recording.attrs.get("layout")
        blocks = layout.get("blocks") if isinstance(layout, Mapping) else None
        self.depth = int(blocks) if blocks is not None else max(known) + 1
        self.sigma_T = np.asarray(recording["sigma"].values, dtype=float)
        self.read, self.part = "", recording
        labels = recording["channel"].values
        if not np.array_equal(labels, np.arange(len(labels))) or Visits(recording, self.branches[0]).channels_missing:
            raise AnalysisError("some channels were not recorded, so there are no fair controls; record all of them.")

    def block(self, layer: str) -> int:
        """Number of a block."""
        return self.numbers[layer]

    def _around(self, layer: str) -> xr.Dataset:
        """Statistics of a block and of the state that enters it, in memory: they are read once a layer, not once a step."""
        if self.read != layer:
            names = [str(name) for name in self.recording["layer"].values]
            at = [entering(self.recording, layer), names.index(layer)]
            self.part, self.read = self.recording[["h_mean", "h_std"]].isel(layer=at).load(), layer
        return self.part

    def mean_square(self, layer: str, name: str, span: tuple[float, float]) -> np.ndarray:
        """E[h²] per channel over tokens, the steps in the window, samples and branches; shape (C,)."""
        probe = Disruption(layer, "massive", (0,), window=span)
        inside = np.flatnonzero([probe.contains(sigma) for sigma in self.sigma_T])
        if not len(inside):
            raise WorkbenchError(
                f"the window {name!r} ({span[0]:g} to {span[1]:g}) holds none of the recorded steps, which are at sigma "
                f"{', '.join(f'{sigma:.3g}' for sigma in self.sigma_T)}. Widen it, or record and run more steps."
            )
        part = self._around(layer).isel(timestep=inside)
        return np.asarray(np.mean([mean_square(part, layer, branch=branch) for branch in self.branches], axis=0))

    def norms(self, layer: str, channels: Sequence[int]) -> Norms:
        """L2 norm of some channels at every recorded step, root mean square over tokens and samples, by branch."""
        order = np.argsort(self.sigma_T, kind="stable")
        found = []
        # Six digits: the norms decide whether a stored result is the same, and sums may round differently.
        for branch in self.branches:
            each = [mean_square(self._around(layer).isel(timestep=[t]), layer, branch=branch) for t in order]
            knots = [
                (float(self.sigma_T[t]), float(f"{np.sqrt(c[list(channels)].sum()):.6g}"))
                for t, c in zip(order, each, strict=True)
            ]
            found.append((branch, tuple(knots)))
        return tuple(found)
