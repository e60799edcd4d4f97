"""The one list of figures, for the report, the command line and the tests."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol, cast

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from workbench.errors import AnalysisError


class Entry(NamedTuple):
    """Where a figure is and what it draws.

    Attributes
    ----------
    module : str
        Full name of the module.
    needs : {"recording", "locate", "modulation"}
        What to pass as first argument: the recording, or what that analysis returned.
    options : tuple of (str, str)
        Options to draw it with by default.
    title : str
        Heading in a report.
    """

    module: str
    needs: Literal["recording", "locate", "modulation"]
    title: str
    options: tuple[tuple[str, str], ...] = ()


_HERE = "workbench.figures"

FIGURES: dict[str, Entry] = {
    "images": Entry(f"{_HERE}.images", "recording", "What was generated"),
    "token_channel": Entry(f"{_HERE}.token_channel", "recording", "One hidden state, token by channel"),
    "token_channel_3d": Entry(
        f"{_HERE}.token_channel", "recording", "The same hidden state as a landscape", (("view", "3d"),)
    ),
    "layer_profile": Entry(f"{_HERE}.layer_profile", "recording", "Largest channels and the median channel over depth"),
    "criteria": Entry(f"{_HERE}.criteria", "locate", "What each criterion calls massive"),
    "trajectory": Entry(f"{_HERE}.trajectory", "modulation", "Magnitude along the trajectory"),
    "gate": Entry(f"{_HERE}.gate", "modulation", "AdaLN gate of the writing block against magnitude"),
}


class FigureModule(Protocol):
    """What every figure module offers."""

    def draw(self, evidence: xr.Dataset, **options: Any) -> Figure:
        """Draw."""

    def data(self, evidence: xr.Dataset, **options: Any) -> pd.DataFrame:
        """Tabulate the numbers that are drawn."""

    def caption(self, evidence: xr.Dataset, **options: Any) -> str:
        """Say what was measured, on how much, and what the verdict is."""


def missing(name: str, evidence: xr.Dataset) -> str:
    """Say why a figure can't be drawn from this evidence, or nothing if it can: not every family has AdaLN terms."""
    if name == "images" and "image" not in evidence:
        return "the recording holds no images"
    if name == "gate" and "spike" not in evidence:
        return "the recording holds no AdaLN terms"
    return ""


def load(name: str) -> FigureModule:
    """Import the module of a figure.

    Raises
    ------
    AnalysisError
        If there is no such figure.
    """
    if name not in FIGURES:
        raise AnalysisError(f"there is no figure {name!r}; choose one of {', '.join(FIGURES)}.")
    return cast(FigureModule, import_module(FIGURES[name].module))
