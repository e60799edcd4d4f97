"""The criteria: named, versioned rules that say which channels are massive activations (MAs).

A criterion has two halves. Its *rule* judges every visit on its own: is this channel massive in this
sample, at this layer and timestep? *Recurrence*, shared by all criteria, then asks how often that happens,
and counts in this order so that a sample is never mistaken for many observations:

1. a cell (layer, timestep) has the channel when the rule holds in `sample_fraction` of the samples;
2. a layer has it when that is so at `timestep_fraction` of the timesteps;
3. the model has it when that is so at `layer_fraction` of the blocks.

`CRITERIA` is the one list of them: documentation, command line and `locate` are generated from it.

Legend: S samples, L layers, T timesteps, C channels.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from workbench.analysis.visits import Visits
from workbench.errors import AnalysisError

Rule = Callable[..., np.ndarray]

RECURRENCE: dict[str, float] = {"sample_fraction": 0.75, "timestep_fraction": 0.5, "layer_fraction": 0.25}
"""Default recurrence; the reasons and what changes with other values stand in `docs/methods.md`."""

_MEANINGS = {
    "sample_fraction": "share of the samples in which the rule must hold at a layer and timestep",
    "timestep_fraction": "share of the timesteps at which a layer must have the channel",
    "layer_fraction": "share of the blocks that must have the channel for it to count as massive in the model",
}


@dataclass(frozen=True)
class Criterion:
    """One named rule with its parameters.

    Attributes
    ----------
    name, version : str
        Both are recorded in everything derived from it. The version changes when a result may change.
    source : str
        Where the rule comes from.
    summary : str
        The rule in one sentence.
    rule : callable
        ``rule(visits, **own parameters) -> bool array (S, L, T, C)``.
    meanings : mapping
        What each parameter means, by name.
    ranking : bool
        Whether the rule only ranks, so that it marks channels in any model and supports nothing by itself.
    """

    name: str
    version: str
    source: str
    summary: str
    rule: Rule
    meanings: Mapping[str, str] = field(default_factory=dict)
    ranking: bool = False

    @property
    def own_parameters(self) -> dict[str, Any]:
        """Parameters of the rule with their defaults."""
        signature = inspect.signature(self.rule)
        return {n: p.default for n, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters with their defaults: the rule's own, then recurrence."""
        return {**self.own_parameters, **RECURRENCE}

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults with `given` on top.

        Raises
        ------
        AnalysisError
            If a parameter is unknown, not a number, or out of range.
        """
        known = self.parameters
        for name, value in given.items():
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise AnalysisError(
                    f"criterion {self.name!r} has no parameter {name!r}; it has {', '.join(known)}.{hint}"
                )
            if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
                raise AnalysisError(f"{name}={value!r}: parameters of criterion {self.name!r} are numbers.")
            if not value > 0:
                raise AnalysisError(f"{name}={value!r} of criterion {self.name!r} must be above 0.")
            if name.endswith(("_fraction", "_share", "_level")) and value > 1:
                raise AnalysisError(f"{name}={value!r} of criterion {self.name!r} is a share: at most 1.")
            if isinstance(known[name], int) and not float(value).is_integer():
                raise AnalysisError(f"{name}={value!r} of criterion {self.name!r} is a count: 1, 2, 3 and so on.")
        kept = {n: type(known[n])(v) for n, v in given.items()}
        return {**known, **kept}


CRITERIA: dict[str, Criterion] = {}


def _register(
    version: str, source: str, summary: str, *, ranking: bool = False, **meanings: str
) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        name = rule.__name__
        CRITERIA[name] = Criterion(name, version, source, summary, rule, {**meanings, **_MEANINGS}, ranking)
        return rule

    return add


def get(name: str) -> Criterion:
    """Look a criterion up by name.

    Raises
    ------
    AnalysisError
        If there is none.
    """
    if name not in CRITERIA:
        raise AnalysisError(f"there is no criterion {name!r}; choose one of {', '.join(CRITERIA)}.")
    return CRITERIA[name]


def describe() -> list[dict[str, Any]]:
    """Every parameter of every criterion, one row each, for documentation and for the command line."""
    return [
        {
            "criterion": c.name,
            "version": c.version,
            "parameter": name,
            "default": default,
            "meaning": c.meanings[name],
        }
        for c in CRITERIA.values()
        for name, default in c.parameters.items()
    ]


@_register(
    "1",
    "this package",
    "mean abs(h) of the channel is at least `ratio` times that of the median channel, stands out of the spread of all "
    "channels at family-wise level `outlier_level`, and is carried by at least `token_share` of the tokens",
    ratio="mean abs(h) of the channel over mean abs(h) of the median channel",
    outlier_level="chance that any of C channels with log-normal magnitudes would stand out as far (robust z)",
    token_share="effective share of tokens, (mean abs(h))² / mean h²: k of N tokens with equal abs(h), the rest 0, give k/N",
)
def workbench(
    visits: Visits, *, ratio: float = 4.0, outlier_level: float = 0.01, token_share: float = 0.5
) -> np.ndarray:
    """Dominance over the other channels and persistence over tokens.

    Three tests, each against one way of being fooled: the ratio against channels that are merely the largest; the
    robust z of ln mean |h| (median and 1.4826 × MAD over channels, bound Φ⁻¹(1 - level / C)) against models whose
    channels all differ widely, where *some* channel always is several times the median; the effective share of tokens
    against a few outlier tokens, which lift a mean over tokens without being a property of the channel.
    """
    large = visits.ratio_to_median_SLTC >= ratio
    log_SLTC = np.log(np.maximum(visits.mean_abs_SLTC, np.finfo(np.float32).tiny))
    deviation = log_SLTC - np.median(log_SLTC, axis=-1, keepdims=True)
    spread = 1.4826 * np.median(np.abs(deviation), axis=-1, keepdims=True)
    apart = deviation >= ndtri(1.0 - outlier_level / log_SLTC.shape[-1]) * spread
    return np.asarray(large & apart & (visits.token_share_SLTC >= token_share))


@_register(
    "1",
    "Sun et al. 2024, arXiv 2402.17762, section 2",
    "some abs(h) of the channel is above `magnitude` and at least `ratio` times the median abs(h) of the hidden state",
    magnitude="smallest abs(h), exclusive, in units of the hidden state",
    ratio="abs(h) over the median of abs(h) over all tokens and channels of the visit",
)
def sun2024(visits: Visits, *, magnitude: float = 100.0, ratio: float = 1000.0) -> np.ndarray:
    """Test |h| of single tokens.

    The largest is exact; the median is exact where `hidden` was recorded, else see `median_abs`.
    """
    loud = visits.max_abs_SLTC > magnitude
    median_SLT = np.full(loud.shape[:-1], np.inf)
    for visit in zip(*np.nonzero(loud.any(axis=-1)), strict=True):  # a visit without a loud channel needs no median
        median_SLT[visit] = median_abs(visits, *map(int, visit))
    return loud & (visits.max_abs_SLTC >= ratio * median_SLT[..., None])


@_register(
    "1",
    "STAS, arXiv 2603.17825 (secondary note: 'feature dimensions > 50 × the mean magnitude')",
    "mean abs(h) of the channel is above `ratio` times the mean of abs(h) over tokens and channels",
    ratio="mean abs(h) of the channel over the mean of abs(h) over all tokens and channels of the visit",
)
def stas(visits: Visits, *, ratio: float = 50.0) -> np.ndarray:
    """Mean over *what* is not stated in the note; here over tokens and channels. Can hold only if C > `ratio`."""
    return visits.ratio_to_mean_SLTC > ratio


@_register(
    "1",
    "Few Channels Draw The Whole Picture, arXiv 2605.13974; k from a reproduction",
    "mean over tokens of abs(h) is among the `k` largest of the layer (a ranking: it always finds k channels)",
    ranking=True,
    k="channels per layer",
)
def top_k(visits: Visits, *, k: int = 12) -> np.ndarray:
    """Rank by the mean over tokens of the absolute value, as the group's later SPARK defines it (its equation 1)."""
    return _largest(visits.mean_abs_SLTC, int(k))


@_register(
    "1",
    "Few Channels Draw The Whole Picture, arXiv 2605.13974, read as 'absolute channel mean'",
    "abs(mean over tokens of h) is among the `k` largest of the layer (a ranking: it always finds k channels)",
    ranking=True,
    k="channels per layer",
)
def top_k_abs_mean(visits: Visits, *, k: int = 12) -> np.ndarray:
    """Rank by the absolute value of the mean: channels whose sign changes over tokens fall back."""
    return _largest(np.abs(visits.mean_SLTC), int(k))


def _largest(values_SLTC: np.ndarray, k: int) -> np.ndarray:
    """Mark the k largest channels of each visit; ties go to the lower channel."""
    order = np.argsort(-values_SLTC, axis=-1, kind="stable")[..., :k]
    mask = np.zeros(values_SLTC.shape, dtype=bool)
    np.put_along_axis(mask, order, True, axis=-1)
    return mask


def median_abs(visits: Visits, sample: int, layer: int, timestep: int) -> float:
    """Median of |h| over tokens × channels of one visit, in units of the hidden state.

    Exact from `hidden` where it was recorded. From statistics alone each channel is taken as normal over
    tokens with its recorded mean and standard deviation, and the median m of that mixture of C folded
    normals is solved for: ``mean_c [Φ((m - μ_c)/σ_c) - Φ((-m - μ_c)/σ_c)] = 1/2``.
    """
    if visits.has_hidden:
        return float(np.median(np.abs(visits.hidden_NC(sample, layer, timestep))))
    mean = visits.mean_SLTC[sample, layer, timestep].astype(np.float64)
    std = np.maximum(visits.std_SLTC[sample, layer, timestep].astype(np.float64), np.finfo(np.float32).tiny)
    low, high = 0.0, float(visits.max_abs_SLTC[sample, layer, timestep].max())
    for _ in range(60):  # bisection: 60 halvings reach float precision from any start
        middle = 0.5 * (low + high)
        if np.mean(ndtr((middle - mean) / std) - ndtr((-middle - mean) / std)) < 0.5:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


@dataclass(frozen=True)
class Recurrence:
    """How often a rule held, counted in the order of this module's docstring."""

    massive_LC: np.ndarray
    massive_channel_C: np.ndarray
    layer_C: np.ndarray
    timestep_C: np.ndarray
    alone_SC: np.ndarray


def recurrence(mask_SLTC: np.ndarray, counted_L: np.ndarray, parameters: Mapping[str, float]) -> Recurrence:
    """Aggregate a rule's mask over samples, timesteps and layers.

    Parameters
    ----------
    mask_SLTC : bool array
        What the rule said of each visit.
    counted_L : bool array
        Layers that count towards recurrence over layers (the blocks, without `input`).
    parameters : mapping
        With `sample_fraction`, `timestep_fraction`, `layer_fraction`.

    Returns
    -------
    Recurrence
        Per layer and channel, per channel, and the shares: of layers, of timesteps (at which
        `layer_fraction` of the layers have it), and which samples qualify on their own.
    """
    by_sample, by_time, by_layer = (_least(parameters[name]) for name in RECURRENCE)
    cell_LTC = by_sample(mask_SLTC, 0)
    massive_LC = by_time(cell_LTC, 1)
    counted_LC = massive_LC[counted_L]
    alone_SC = by_layer(by_time(mask_SLTC[:, counted_L], 2), 1)
    return Recurrence(
        massive_LC=massive_LC,
        massive_channel_C=by_layer(counted_LC, 0),
        layer_C=counted_LC.mean(axis=0),
        timestep_C=by_layer(cell_LTC[counted_L], 0).mean(axis=0),
        alone_SC=alone_SC,
    )


def _least(fraction: float) -> Callable[[np.ndarray, int], np.ndarray]:
    """Share of True along an axis is at least `fraction` (to a rounding error: 3 of 4 is three quarters)."""
    return lambda mask, axis: mask.mean(axis=axis) >= fraction - 1e-9
