"""Data sets for `benchmarks.hierarchy_rates`, judged by the functions of the analysis without opening a recording."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the simulated recordings live with the tests

from tests.planted_video import Size, Spread, Truth, hidden_states  # noqa: E402
from workbench.analysis import hierarchy_rule as rule  # noqa: E402
from workbench.analysis.hierarchy import SMALLEST_EFFECT  # noqa: E402
from workbench.analysis.hierarchy_contrasts import CONTRASTS, apply_weights, contrast_weights, counted  # noqa: E402
from workbench.analysis.hierarchy_parts import (  # noqa: E402
    Sampling,
    add_dynamics,
    add_nulls,
    add_overall,
    add_visits,
)
from workbench.analysis.hierarchy_regions import places_of, reduce_states  # noqa: E402
from workbench.analysis.hierarchy_verdict import Evidence, specific_answer  # noqa: E402

BY = Sampling(confidence=0.95, resamples=500, permutations=499, seed=0)  # the analysis takes 2000 and 1999

SMALL: dict[str, Any] = {"channels": 8, "massive": {3: +1, 5: -1}, "blocks": 2, "steps": 4}


LEVELS = ("overall", "nulls")
"""Parts of the result on which levels and verdict rest."""

PARTS = ("visits", *LEVELS, "dynamics")


class Judged:
    """What `hierarchy` computes and says of one data set, without opening a recording and locating its channels.

    It stands in for the result where the analysis's own functions put their numbers;
    `tests/analysis/test_hierarchy_rates.py` holds it against `hierarchy`.
    """

    #: `anew`: resamples and flips of its own, where the analysis would take the same for every data set.
    #: `parts`: those of `PARTS` that are looked at; the others take time.
    def __init__(
        self,
        truth: Truth,
        size: Size,
        spread: Spread,
        seed: int,
        *,
        anew: bool = False,
        parts: Sequence[str] = PARTS,
    ) -> None:
        self.attrs: dict[str, Any] = {"smallest_effect": SMALLEST_EFFECT, "alpha": 0.05, "n_replicates": size.prompts}
        self.coords: dict[str, Any] = {"sigma": np.linspace(1.0, 1.0 / size.steps, size.steps)}
        self.data_vars: dict[str, Any] = {}
        self.sizes: dict[str, int] = {}
        by = BY._replace(seed=10**9 + seed) if anew else BY  # not the stream that the data are drawn from
        places = places_of(video_tokens(size.grid), size.width)
        massive = len(size.massive)
        order = [*size.massive, *(c for c in range(size.channels) if c not in size.massive)]
        h = np.abs(hidden_states(truth, size, spread, seed)[:, 0][..., order])
        logs, turned = reduce_states(h, places, massive)
        counts = counted(np.ones((h.shape[1], massive), dtype=bool), np.arange(h.shape[1]) > 0)
        contrasts = apply_weights(logs, contrast_weights(places))
        adds = {"visits": add_visits, "overall": add_overall, "nulls": add_nulls, "dynamics": add_dynamics}
        for part in parts:
            values = (logs, turned) if part == "nulls" else (contrasts,)
            adds[part](self, *values, counts, by)  # type: ignore[operator]
        if not set(LEVELS) <= set(parts):
            return
        evidence = Evidence(self)  # type: ignore[arg-type]
        states = evidence.states("overall")
        self.levels = rule.levels(states)
        self.specific = specific_answer(evidence, states, self.levels)
        self.verdict = rule.verdict_of(self.levels, self.specific)
        self.states = states

    def update(self, new: dict[str, Any]) -> None:
        """As a Dataset takes variables."""
        self.data_vars |= {name: xr.Variable(dims, values) for name, (dims, values, *_) in new.items()}

    def __getitem__(self, name: str) -> Any:
        return xr.Variable("timestep", self.coords[name]) if name in self.coords else self.data_vars[name]

    def of(self, name: str, contrast: str) -> Any:
        """One value of a variable with one a contrast."""
        return self.data_vars[name].values[list(CONTRASTS).index(contrast)]

    def small(self, name: str) -> bool:
        """Whether any p-value of a variable is at most 0.05."""
        return bool((self.data_vars[name].values <= 0.05).any())


def video_tokens(grid: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Coordinates of the tokens of a grid."""
    return dict(zip(("frame", "row", "column"), np.indices(grid).reshape(3, -1), strict=True))
