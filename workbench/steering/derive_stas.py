"""From a recording of videos to a STAS spec: where by `choose`, on which tokens by the hierarchy that was found or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from workbench.analysis.locate import locate, located_channels
from workbench.errors import RoleError, SpecError
from workbench.roles import grid_of
from workbench.steering.choose import (
    RULE_STAS,
    RULE_STAS_VERSION,
    candidates_of,
    depth_of,
    given_channels,
    given_layer,
    middle,
    pick,
)
from workbench.steering.evidence import Swept
from workbench.steering.hierarchy_evidence import Hierarchy, profile_notes, width_evidence
from workbench.steering.source import model_of_recording, numbers, plain, store_of, versions, warning
from workbench.steering.spec import StasSpec, Window
from workbench.steering.stas_evidence import swept_stas
from workbench.steering.windows import first_part

DEFAULT_ALPHA = 1.0
"""Of first-frame and boundary tokens. Paper B's alpha is not established (methods.md, B.3, H 2); 1 sets a token to the
largest value that there is."""

DEFAULT_WINDOW = first_part(0.4)
"""The first 20 of 50 steps, and as large a share of any other number (arXiv 2603.17825, second-hand: methods.md, B.3)."""

SOURCES = {
    "formula": "arXiv 2603.17825, second-hand (methods.md, B.3)",
    "action": "arXiv 2603.17825",
    "tokens": "arXiv 2603.17825: first frame and boundaries; in raster order, head and tail of a frame's run",
    "state": "a choice: the state that leaves the block; which tensor the paper means is not established (methods.md, B.1)",
    "maximum": "a choice: over all video tokens of each sample; per sample or batch is not established (methods.md, B.3)",
    "alpha_first": "a choice: the paper's alpha is not established (methods.md, B.3)",
    "alpha_boundary": "a choice: the paper's alpha is not established (methods.md, B.3)",
    "reference": "a choice: per channel or joint is not established (methods.md, B.3)",
    "window": "arXiv 2603.17825, second-hand: the first 20 of 50 steps (methods.md, B.3)",
    "branches": "a choice: both passes; which the paper steers is not established (methods.md, B.3)",
    "layers": "measured: RULE in evidence; which blocks the paper steers is not established (methods.md, B.1)",
    "channels": "measured: RULE in evidence",
}
"""Choice -> where its default comes from. What is given or measured otherwise is said so instead."""

_ESTABLISHED = ("formula", "action", "tokens", "window")
_SIZE = ("height", "width", "num_frames")

Auto = Literal["auto"]
Alpha = float | None | Auto


def derive_stas(
    recording: xr.Dataset,
    *,
    hierarchy: xr.Dataset | None = None,
    profile: xr.Dataset | None = None,
    criterion: str = "workbench",
    layers: str | Sequence[str] = "auto",
    channels: Sequence[int] | Auto = "auto",
    alpha_first: Alpha = "auto",
    alpha_boundary: Alpha = "auto",
    boundary_width: int | Mapping[str, Any] | Auto = "auto",
    reference: Literal["channel", "joint", "auto"] = "auto",
    window: Window | Mapping[str, Any] | Auto = "auto",
    branches: Sequence[str] | Auto = "auto",
    sweep: Swept | xr.Dataset | str | Path | None = None,
    anyway: bool = False,
    **parameters: Any,
) -> StasSpec:
    """Derive a STAS spec (paper B, arXiv 2603.17825) from a recording of videos.

    Every choice that is left at ``"auto"`` follows `choose.RULE_STAS` and the defaults of this module. The spec says of each
    whether it was established, measured, a default or given (`evidence.provenance`), and in words from where
    (`recommended.source`).

    Parameters
    ----------
    recording : xr.Dataset
        As in `docs/schema.md`, from `workbench.open`, of a video model. Statistics suffice; the branch ``cond`` is used.
    hierarchy : xr.Dataset, optional
        What `workbench.analysis.hierarchy.hierarchy` found in a recording of the same model, on the channels of the spec (by
        the same criterion). Its verdict and contrasts go into
        the evidence; without it the spec says that the tokens' roles rest on the paper alone.
    profile : xr.Dataset, optional
        What `workbench.analysis.profile.profile` found in a recording of the same model; where it proposes a boundary width,
        that is taken.
    criterion : str
        Criterion of `workbench.analysis.locate`.
    layers : str or sequence of str
        Full module paths of the blocks whose leaving state is changed.
    channels : sequence of int
    alpha_first, alpha_boundary : float or None
        None leaves the role's tokens alone.
    boundary_width : int or mapping
        In tokens, or ``{"unit": "tokens" | "rows" | "fraction", "value": …}``. Default: the one that the
        profile proposes, or the hierarchy's, or the recording's, in rows where it is a whole number of rows.
    reference : str
        ``"channel"`` or ``"joint"``.
    window : Window or mapping
        ``{"unit": "sigma" | "step_fraction", "low": …, "high": …}``.
    branches : sequence of str
        ``["cond"]``, ``["uncond"]`` or ``["cond", "uncond"]``.
    sweep : Dataset, path or Swept, optional
        What `workbench.stas_trial` returned with ``over=…``, or its folder: the best setting by `workbench.analysis.stas_choice` is
        taken, and the evidence written into the spec. Where none is better than plain videos, that is what the evidence says of the
        defaults. A `Swept` is what another measurement decided, for what is left at ``"auto"``.
    anyway : bool
        Derive although the hierarchy is not supported, or not tested on these channels; the evidence says so.
    **parameters
        Parameters of the criterion.

    Returns
    -------
    StasSpec
        Ready for `save_spec` and `workbench.apply`. The same recording and hierarchy give the same spec, bit for bit.

    Raises
    ------
    SpecError
        If the recording is of images; no channel is massive; the hierarchy is of another model, or its verdict is not
        ``supported`` or it was not tested on all of the spec's channels, and `anyway` is False; the profile or trial is of another model, or a choice is given besides a trial; a layer, channel or width does not exist; or a value is not valid.
    AnalysisError
        If the recording can't be analysed.
    """
    model = model_of_recording(recording)
    grid = _grid(recording)
    asked: dict[str, Any] = {
        "layers": layers, "channels": channels, "alpha_first": alpha_first, "alpha_boundary": alpha_boundary,
        "boundary_width": boundary_width, "reference": reference, "window": window, "branches": branches,
    }  # fmt: skip
    given = {key: value for key, value in asked.items() if not (isinstance(value, str) and value == "auto")}
    if not (sweep is None or isinstance(sweep, Swept)):
        whole = swept_stas(sweep, model=model, given=given)
        own = {"hierarchy": hierarchy, "profile": profile, "criterion": criterion, "anyway": anyway} | parameters
        sweep = whole._replace(settings=_decided(whole, recording, own))
    settings = _swept(sweep, asked) | given
    levels, profiled = Hierarchy(hierarchy, model, anyway=anyway), profile_notes(profile, model)

    found = locate(recording, criterion=criterion, branch="cond", **parameters)
    located, candidates = located_channels(found), candidates_of(found)
    massive_LC, depth = found["massive"].sel(criterion=criterion).values, depth_of(recording)
    if "layers" in settings:
        named = [settings["layers"]] if isinstance(settings["layers"], str) else list(settings["layers"])
        if not named:
            raise SpecError("layers is empty; name at least one block, or leave it at 'auto'.")
        chosen = [given_layer(layer, candidates) for layer in named]
    else:
        chosen = [middle(candidates, depth, massive_LC, located, found, state="leaving")]
    if "channels" in settings:
        picked = given_channels(settings["channels"], found)
    else:
        picked = sorted({c for block in chosen for c in pick(block, massive_LC, located, found, state="leaving")})
    width, width_provenance, width_source = width_evidence(
        settings.get("boundary_width", "auto"), grid, recording=recording, hierarchy=hierarchy, profile=profile
    )
    decided = str(found.attrs["verdict"]) == "supported"
    provenance, source = _standing(given, sweep, (width_provenance, width_source), decided=decided)
    recommended = _recommended(recording, sweep)
    warnings = [warning(found)] if not decided and {"layers", "channels"} - set(settings) else []
    warnings += levels.warnings(picked, width, grid)
    spec = StasSpec.create(
        model=model,
        layers=[block.path for block in chosen],
        channels=picked,
        action="steer",
        alpha_first=plain(settings.get("alpha_first", DEFAULT_ALPHA)),
        alpha_boundary=plain(settings.get("alpha_boundary", DEFAULT_ALPHA)),
        boundary_width=width,
        reference=settings.get("reference", "channel"),
        branches=_listed(settings.get("branches", ("cond", "uncond"))),
        window=settings.get("window", DEFAULT_WINDOW),
        recommended={**recommended, "source": source | dict.fromkeys(recommended, _measured_at(sweep))},
        evidence={
            "criterion": criterion,
            "parameters": {
                "criterion_version": found.attrs["criterion_version"],
                "criterion": json.loads(found.attrs["parameters"]),
                "rule_version": RULE_STAS_VERSION,
            },
            "store": store_of(recording),
            "n_samples": int(found.attrs["n_samples"]),
            "channels": [numbers(found, criterion, chosen[0].leaving, channel) for channel in picked],
            "rule": RULE_STAS,
            "provenance": provenance,
            "notes": {
                "located_channels": located,
                "verdict": str(found.attrs["verdict"]),
                "verdict_reason": str(found.attrs["verdict_reason"]),
                "replicates": str(found.attrs["replication"]),
                "blocks_recorded": len(candidates),
                "blocks_in_model": depth,
                "token_grid": list(grid),
                "hierarchy": levels.notes(),
                **profiled,
                **({"warning": " ".join(warnings)} if warnings else {}),
                **({"sweep": sweep.notes} if sweep else {}),
            },
        },
        created_by=versions(),
    )
    spec.width_on(grid)
    return spec


def _decided(best: Swept, recording: xr.Dataset, own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the best one of a trial that it varied, or that are others than would be derived here.

    So what the trial left as it was derived keeps its own evidence.
    """
    if not best.settings:
        return {}
    try:
        derived = derive_stas(recording, **own).model_dump(mode="json")
    except SpecError:
        # What can't be derived without the trial (a block that was not recorded) is taken from it.
        return dict(best.settings)
    return {key: value for key, value in best.settings.items() if key in best.provenance or value != derived[key]}


def _swept(sweep: Swept | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the sweep decided; only what can be asked for here."""
    settings = dict(sweep.settings) if sweep else {}
    unknown = sorted(set(settings) - set(asked))
    if unknown:
        raise SpecError(f"the sweep decides {', '.join(unknown)}, and a STAS spec is derived from {', '.join(asked)}.")
    return settings


def _standing(
    given: Mapping[str, Any], sweep: Swept | None, width: tuple[str, str], *, decided: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Return, of every choice, the word for where it comes from, and the words."""
    swept = dict(sweep.provenance) if sweep else {}
    swept = {key: swept.get(key, "given") for key in (sweep.settings if sweep else {})}
    analysed = ("layers", "channels")
    provenance = {key: "established" if key in _ESTABLISHED else "default" for key in SOURCES}
    provenance |= dict.fromkeys(analysed, "measured" if decided else "undecided")
    provenance |= {"boundary_width": width[0], **swept, **dict.fromkeys(given, "given")}
    source = SOURCES | {"boundary_width": width[1]}
    if not decided:
        source |= {key: "undecided: " + source[key].removeprefix("measured: ") for key in analysed}
    source |= {key: f"{word}: by the sweep in evidence" for key, word in swept.items()}
    return provenance, source | dict.fromkeys(given, "given")


def _grid(recording: xr.Dataset) -> tuple[int, int, int]:
    """Token grid of the recording, which must be of videos."""
    try:
        grid = grid_of(recording)
    except RoleError as error:
        raise SpecError(f"a STAS spec was not derived: {error}") from error
    if grid[0] < 2:
        raise SpecError(
            f"a STAS spec was not derived: the recording is of images (grid {grid}), or of videos of one latent frame. STAS "
            "steers the first frame and the boundaries of the later ones; record a video model, or derive Detail Guidance."
        )
    return grid


def _recommended(recording: xr.Dataset, sweep: Swept | None) -> dict[str, Any]:
    """Settings of the call that the evidence was taken at."""
    settings = recording.attrs.get("settings", {})
    taken = {key: settings.get(key) for key in ("guidance_scale", "steps", *_SIZE)}
    return taken | {key: value for key, value in (sweep.recommended if sweep else {}).items() if key in taken}


def _measured_at(sweep: Swept | None) -> str:
    return "of the sweep, or else of the recording" if sweep and sweep.recommended else "of the recording"


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else list(value)
