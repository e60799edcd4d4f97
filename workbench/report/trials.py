"""Sections about what was tried out on the model: the causal part of modulation, disruption, swept guidance, baselines."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from workbench.figures.style import short
from workbench.report.sections import Drawn, Section

#: Measures in the tables of this page, where they were measured, with their heads; all are in numbers and CSV files.
#: Of the distances that to the own training picture alone: that to the mean spectrum is 0.9 for real pictures, too.
_MEASURES = {
    "edge_energy": "edge energy",
    "own_spectral_distance": "distance to own",
    "low_pass_similarity": "similarity",
    "recognised": "recognised",
}
_BRIEF = ("own_spectral_distance", "low_pass_similarity")


def causal_section(result: xr.Dataset, drawn: Drawn) -> Section:
    """Exchanged embeddings: what the timestep does, apart from the latent's noise."""
    rows = []
    for channel in result["channel"].values:
        at = result.sel(channel=channel)
        rows.append(
            [
                int(channel),
                str(at["channel_verdict"].values),
                *(three(at, "effect_overall", factor=factor) for factor in ("embedding", "latent")),
                three(at, "share_overall", factor="embedding"),
                number(at["p_corrected_overall"].sel(factor="embedding")),
            ]
        )
    tables = [
        {
            "caption": "Per massive channel, over the blocks in which it is massive. Embedding, latent: largest difference of "
            "ln mean |h| between two levels, averaged over the other factor, with intervals over "
            f"{result.attrs['replicate']}s. Share: of the embedding in the variance over all cells, with bootstrap ranges. p for the embedding, corrected over channels.",
            "head": ["channel", "verdict", "embedding", "latent", "share (emb.)", "p"],
            "rows": rows,
            "brief": [0, 1, 2, 3],
        }
    ]  # fmt: skip
    return Section(
        "timestep",
        "Is it the timestep?",
        "Along a trajectory the timestep and the noise of the latent move together. Here the embedding of t′ went in together "
        f"with the latent of t, for every pair of a grid. {result.attrs['verdict_reason']}",
        tables,
        [f for f in drawn.values() if f["needs"] == "causal"],
    )


def disruption_section(result: xr.Dataset, drawn: Drawn) -> Section:
    """Disrupted channels: what they carry."""
    rows = []
    for e in range(result.sizes["cell"]):
        at = result.isel(cell=e)
        for kind in map(str, result["kind"].values):
            loss = at.sel(kind=kind)
            rows.append(
                [
                    f"{short(str(at['layer'].values))}, {at['window'].values}",
                    kind.replace("_", " "),
                    number(loss["norm"]),
                    *(three(loss, "loss", measure=aspect) for aspect in ("detail", "content")),
                ]
            )
    table = {
        "caption": "Loss as a share of the mean difference to another prompt's picture (0: nothing changes; 1: the detail, or the "
        "content, differs as much as in another picture). Norm: L2 norm per token that was taken away or added.",
        "head": ["before, window", "what", "norm", "detail lost", "content lost"],
        "rows": [row for row in rows if row[2] != ""],
        "brief": [0, 1, 3, 4],
    }
    return Section(
        "disruption",
        "What do they carry?",
        f"Channels of the state that enters one block were set to zero while the model drew, always from the same seeds. "
        f"{result.attrs['verdict_reason']}",
        [table],
        [f for f in drawn.values() if f["needs"] == "disruption"],
    )


def sweep_section(result: xr.Dataset, drawn: Drawn) -> Section:
    """Swept settings of Detail Guidance: which is best, if any is."""
    best = json.loads(result.attrs["best"])
    names = [_foremost(result, mode, str(choice["choice"])) for mode, choice in best.items()]
    shown = dict.fromkeys([*_baselines(result), *names])
    return Section(
        "sweep",
        "Does Detail Guidance add detail?",
        f"{result.attrs['verdict_reason']} Rule: {result.attrs['rule']}",
        [
            _effects(
                result,
                list(shown),
                "The baselines and, per mode, the setting that the rule chose, or else the one of the largest gain",
            )
        ]
        if shown
        else [],
        [f for f in drawn.values() if f["needs"] == "sweep"],
    )


def baselines_section(result: xr.Dataset, drawn: Drawn) -> Section:
    """Detail Guidance beside what else could be done with the same seeds."""
    return Section(
        "baselines",
        "Beside other guidances",
        "The same prompts and seeds, once each way. Random channels are ordinary ones that hold as much as the massive ones; "
        "skip-layer guidance and perturbed attention degrade the model in another way. Seconds are wall time of a denoising "
        f"step for one sample in its batch, on this machine. {result.attrs['verdict_reason']}",
        [_effects(result, [str(name) for name in result["condition"].values], "All conditions")],
        [f for f in drawn.values() if f["needs"] == "baselines"],
    )


#: Evidence → its section, in the order of the page.
TRIED: dict[str, Callable[[xr.Dataset, Drawn], Section]] = {
    "causal": causal_section,
    "disruption": disruption_section,
    "sweep": sweep_section,
    "baselines": baselines_section,
}


def _foremost(result: xr.Dataset, mode: str, choice: str) -> str:
    """The chosen setting of a mode; without one, that with the largest gain, controls not counted."""
    if choice in result["condition"].values:
        return choice
    role = result["role"].values if "role" in result.coords else np.full(result.sizes["condition"], "")
    own = (
        (result["mode"].values == mode)
        & (role != "control")
        & (result["baseline"].values != result["condition"].values)
    )
    gain = np.where(own & np.isfinite(result["gain"].values), result["gain"].values, -np.inf)
    return str(result["condition"].values[int(np.argmax(gain))])


def _baselines(result: xr.Dataset) -> list[str]:
    return [str(name) for name in result["condition"].values if str(name) in result["baseline"].values]


def _effects(result: xr.Dataset, names: list[str], what: str) -> dict[str, Any]:
    """Conditions down, measures across; differences to the baseline, and the baseline's own means."""
    measures = [name for name in _MEASURES if name in result["measure"].values]
    rows = []
    for name in names:
        at = result.sel(condition=name)
        own = str(at["baseline"].values) == name
        cells = [
            number(at["mean"].sel(measure=m)) if own else three(at, "effect", measure=m, signed=True) for m in measures
        ]
        seconds = number(at["seconds_per_step"]) if "seconds_per_step" in at else ""
        rows.append([name, *cells, seconds])
    return {
        "caption": f"{what}: the mean of {' and '.join(_baselines(result))}, for the others the mean paired difference to that of the "
        f"two with as much CFG, with its interval over {result.attrs['replicate']}s ({result.attrs['replication']}); intervals are not "
        "corrected for their number. Distance to own: of the band powers to those of the prompt's training picture, ln units.",
        "head": ["condition", *(_MEASURES[name] for name in measures), "s / step"],
        "rows": rows,
        "brief": [0, *(1 + i for i, m in enumerate(measures) if m in _BRIEF), 1 + len(measures)],
    }


def number(value: Any) -> float | str:
    """A number for a cell of a table; nothing where there is none."""
    found = float(value)
    return found if np.isfinite(found) else ""


def three(data: xr.Dataset, name: str, digits: int = 2, *, signed: bool = False, **where: str) -> str:
    """Value with its interval."""
    middle, low, high = (float(data[name + end].sel(where)) for end in ("", "_low", "_high"))
    if not np.isfinite(middle):
        return "–"
    sign = "+" if signed else ""
    if not np.isfinite(low):
        return f"{middle:{sign}.{digits}g} (n too small)"
    return f"{middle:{sign}.{digits}g} [{low:{sign}.{digits}g}, {high:{sign}.{digits}g}]"
