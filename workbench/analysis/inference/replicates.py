"""What counts as one observation, and how many of them are too few.

A *prompt* is the unit of replication: samples of one prompt resemble each other (most of the spread of a
massive channel is between prompts), and seeds are shared by all prompts. Tokens, layers and steps are therefore averaged inside a sample, samples inside
their prompt (`by_prompt`), and only then is anything inferred. Where there is one prompt only, its seeds
are the replicates, and what is said holds for this prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import AnalysisError

Floats = NDArray[np.float64]

MINIMUM_SAMPLES = 5
"""Fewest replicates for a verdict or an interval: five that agree is where an exact one-sided sign test first
falls below 0.05 (2**-5 = 0.031), and below it the bootstrap has too few distinct resamples to say anything."""


def by_prompt(values_SX: NDArray[Any], prompts: Sequence[str]) -> tuple[NDArray[Any], list[str]]:
    """Mean over the samples of each prompt: what is resampled and counted as n.

    Parameters
    ----------
    values_SX : array, shape (S, ...)
        One value per sample.
    prompts : sequence of str
        Prompt of each sample.

    Returns
    -------
    array, shape (P, ...)
        Means in the order in which the prompts are first seen. With one distinct prompt the values are
        returned unchanged: the seeds are the replicates then, and what is inferred holds for this prompt.
    list of str
        The distinct prompts.
    """
    values, names = np.asarray(values_SX), [str(prompt) for prompt in prompts]
    if len(names) != len(values):
        raise ValueError(f"{len(values)} samples, but {len(names)} prompts")
    distinct = list(dict.fromkeys(names))
    if len(distinct) <= 1:
        return values, distinct
    at_S = np.asarray([distinct.index(name) for name in names])
    return np.stack([values[at_S == i].mean(axis=0) for i in range(len(distinct))]), distinct


def check_confidence(confidence: float) -> None:
    """Raise `AnalysisError` unless the coverage asked for lies between 0 and 1."""
    if not 0.0 < confidence < 1.0:
        raise AnalysisError(f"confidence={confidence!r} must lie between 0 and 1, as 0.95 does.")


def check_resamples(resamples: int) -> None:
    """Raise `AnalysisError` unless something is resampled."""
    if not resamples >= 1:
        raise AnalysisError(f"resamples={resamples!r} must be at least 1.")
