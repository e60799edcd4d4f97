"""What was tried out on the model: swapped embeddings, disrupted channels, swept guidance. Opened, then analysed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from workbench.analysis.baselines import baselines as analyse_baselines
from workbench.analysis.causal import causal
from workbench.analysis.disruption import disruption
from workbench.analysis.hierarchy import hierarchy
from workbench.analysis.locate import located_channels
from workbench.analysis.profile import profile
from workbench.analysis.same_model import same_model
from workbench.analysis.stas import stas_effects
from workbench.analysis.stas_choice import stas_choice
from workbench.analysis.sweep import sweep
from workbench.analysis.tables import Kind, open_table
from workbench.errors import WorkbenchError
from workbench.store import open_recording

Given = str | Path | xr.Dataset

#: Arguments of `causal` besides the first, by the experiment that goes there.
_SINGLE = {"prompt-swap": "prompt_swap", "seed-swap": "seed_swap"}


def tried(
    recording: xr.Dataset,
    found: xr.Dataset,
    *,
    experiments: Sequence[Given] = (),
    disrupted: Given | None = None,
    swept: Given | None = None,
    baselines: Given | None = None,
    stas: Given | None = None,
    branch: str = "cond",
) -> dict[str, xr.Dataset]:
    """Analyse what is given.

    Parameters
    ----------
    recording, found : xr.Dataset
        The recording of the same model, and its located channels, which are the ones that are followed.
    experiments : sequence of path or Dataset
        Swap experiments, each kind at most once, a timestep-swap among them.
    disrupted, swept, baselines, stas : path or Dataset, optional
        What `workbench.disrupt`, `workbench.sweep`, `workbench.baselines` and `workbench.stas_trial` measured.
    branch : str
        Branch to analyse.

    Returns
    -------
    dict
        ``causal``, ``disruption``, ``sweep``, ``baselines``, ``stas``, and of a trial with several settings ``stas_choice``: those
        that can be had.

    Raises
    ------
    WorkbenchError
        If something is of another model, or there is no timestep-swap.
    """
    evidence = {}
    if experiments:
        evidence["causal"] = swapped(recording, found, experiments, branch)
    if disrupted is not None:
        evidence["disruption"] = disruption(_table(disrupted, "disruption", recording))
    if swept is not None:
        evidence["sweep"] = sweep(_table(swept, "sweep", recording))
    if baselines is not None:
        evidence["baselines"] = analyse_baselines(_table(baselines, "baselines", recording))
    if stas is not None:
        table = _table(stas, "stas", recording)
        evidence["stas"] = stas_effects(table)
        if (table["role"] == "grid").any():
            evidence["stas_choice"] = stas_choice(table)
    return evidence


def of_videos(recording: xr.Dataset, found: xr.Dataset, *, branch: str = "cond") -> dict[str, xr.Dataset]:
    """Profile and frame hierarchy of a recording of videos: of the located channels, if there are any.

    Returns
    -------
    dict
        ``profile`` and ``hierarchy``; nothing of images, of statistics without hidden states, or where no channel is massive.
    """
    video = "frame" in recording.coords and int(recording["frame"].max()) > 0
    channels = located_channels(found)
    if not video or "hidden" not in recording or not channels:
        return {}
    return {
        "profile": profile(recording, channels=channels, branch=branch),
        "hierarchy": hierarchy(recording, channels=channels, branch=branch),
    }


def _table(given: Given, kind: Kind, recording: xr.Dataset) -> xr.Dataset:
    table = open_table(given, kind)
    same_model(table, recording, f"the table of {kind}")
    return table


def swapped(
    recording: xr.Dataset | None, found: xr.Dataset | None, experiments: Sequence[Given], branch: str = "cond"
) -> xr.Dataset:
    """The causal analysis of swap experiments, of the channels located in the recording where there is one."""
    opened = {}
    for given in experiments:
        experiment = given if isinstance(given, xr.Dataset) else open_recording(given)
        kind = str(experiment.attrs.get("experiment", "a trajectory"))
        if kind in opened or kind not in ("timestep-swap", *_SINGLE):
            raise WorkbenchError(
                f"{kind} can't be used {'twice' if kind in opened else 'as an experiment'}; give at most one each of "
                f"timestep-swap, {', '.join(_SINGLE)}, from `workbench record MODEL --experiment …`."
            )
        if recording is not None:
            same_model(experiment, recording, f"the {kind} experiment")
        opened[kind] = experiment
    if "timestep-swap" not in opened:
        raise WorkbenchError(
            f"there is no timestep-swap among the experiments ({', '.join(opened)}), which alone shows what the timestep does."
        )
    single: Mapping[str, Any] = {_SINGLE[kind]: data for kind, data in opened.items() if kind in _SINGLE}
    channels = located_channels(found) if found is not None else None
    return causal(opened["timestep-swap"], channels=channels or None, branch=branch, **single)
