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
    needs : {"recording", "locate", "modulation", "causal", "disruption", "sweep", "baselines", "profile", "hierarchy", "stas"}
        What to pass as first argument: the recording, or what that analysis returned.
    options : tuple of (str, str)
        Options to draw it with by default.
    title : str
        Heading in a report.
    """

    module: str
    needs: Literal[
        "recording",
        "locate",
        "modulation",
        "causal",
        "disruption",
        "sweep",
        "baselines",
        "profile",
        "hierarchy",
        "stas",
    ]
    title: str
    options: tuple[tuple[str, str], ...] = ()


_HERE = "workbench.figures"

FIGURES: dict[str, Entry] = {
    "images": Entry(f"{_HERE}.images", "recording", "What was generated"),
    "frame_strip": Entry(f"{_HERE}.frame_strip", "recording", "What was generated, frame by frame"),
    "token_channel": Entry(f"{_HERE}.token_channel", "recording", "One hidden state, token by channel"),
    "token_channel_3d": Entry(
        f"{_HERE}.token_channel", "recording", "The same hidden state as a landscape", (("view", "3d"),)
    ),
    "layer_profile": Entry(f"{_HERE}.layer_profile", "recording", "Largest channels and the median channel over depth"),
    "criteria": Entry(f"{_HERE}.criteria", "locate", "What each criterion calls massive"),
    "trajectory": Entry(f"{_HERE}.trajectory", "modulation", "Magnitude along the trajectory"),
    "gate": Entry(f"{_HERE}.gate", "modulation", "AdaLN gate of the writing block against magnitude"),
    "causal_surface": Entry(f"{_HERE}.causal_surface", "causal", "Magnitude over latent and embedding"),
    "variance_shares": Entry(f"{_HERE}.variance_shares", "causal", "What the variance is made of"),
    "mediation": Entry(f"{_HERE}.mediation", "causal", "What goes with gate, shift and scale of one block"),
    "disruption": Entry(
        f"{_HERE}.disruption", "disruption", "What is lost without the massive channels, and with controls"
    ),
    "sweep": Entry(f"{_HERE}.sweep", "sweep", "Detail Guidance by layer and weight, and what it keeps of the content"),
    "baselines": Entry(f"{_HERE}.baselines", "baselines", "Detail Guidance among other guidances"),
    "profile": Entry(f"{_HERE}.profile", "profile", "|h| over the token index, and the boundary width it proposes"),
    "hierarchy_map": Entry(f"{_HERE}.hierarchy_map", "hierarchy", "The frame hierarchy over depth and denoising"),
    "hierarchy_contrasts": Entry(
        f"{_HERE}.hierarchy_contrasts", "hierarchy", "First frame, boundary, image edge: the contrasts and their nulls"
    ),
    "stas_effects": Entry(f"{_HERE}.stas_effects", "stas", "What STAS changes in the videos, and what the controls do"),
    "hierarchy_dynamics": Entry(f"{_HERE}.hierarchy_dynamics", "hierarchy", "The hierarchy while the video is made"),
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
    if name in ("images", "frame_strip"):
        video = "video_frame" in evidence["image"].dims if "image" in evidence else None
        if video is not (name == "frame_strip"):
            return f"the recording holds no {'images' if name == 'images' else 'videos'}"
    if name == "gate" and "spike" not in evidence:
        return "the recording holds no AdaLN terms"
    if name == "mediation" and "mediated" not in evidence:
        return "the experiment holds no mediation cells"
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
