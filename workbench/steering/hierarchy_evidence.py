"""What a measured frame hierarchy says about a STAS spec, and what a spec says where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import xarray as xr
from pydantic import ValidationError

from workbench.analysis.hierarchy_rule import headline
from workbench.analysis.same_model import same_model
from workbench.errors import SpecError
from workbench.roles import ONE_ROW, default_width
from workbench.steering.source import rounded
from workbench.steering.spec import BoundaryWidth

NOT_MEASURED = (
    "No frame hierarchy was measured in this model; that first-frame and boundary tokens are raised is the paper's claim "
    "about other models. `workbench hierarchy STORE` measures it (tier full)."
)

_SAID = (
    "verdict", "levels", "verdict_reason", "specific", "control_levels", "confound", "replication", "branch", "criterion",
    "boundary_width", "boundary_width_source", "recording_settings_fingerprint", "version",
)  # fmt: skip


class Hierarchy:
    """A result of `workbench.analysis.hierarchy.hierarchy`, or None.

    Raises
    ------
    SpecError
        If it is no such result, is of another model, or its verdict is not ``supported`` and `anyway` is False.
    """

    def __init__(self, found: xr.Dataset | None, model: Mapping[str, Any], *, anyway: bool) -> None:
        self.found, self.anyway = found, anyway
        if found is None:
            return
        if found.attrs.get("analysis") != "hierarchy" or "verdict" not in found.attrs:
            raise SpecError(
                f"`hierarchy` is no result of the analysis of that name (its analysis is {found.attrs.get('analysis')!r}). "
                "Pass what `hierarchy(recording)` returned, or nothing."
            )
        same_model(found, model, "the hierarchy", error=SpecError)
        if not self.supported and not anyway:
            raise SpecError(
                f"a STAS spec was not derived: first frame > boundary > interior is {self.verdict} in this model (found: "
                f"{self.levels}). {found.attrs.get('verdict_reason', '')} STAS would raise what is not shown to be raised. "
                "Derive it anyway with `anyway=True` (`--anyway`); the spec then says so."
            )

    @property
    def verdict(self) -> str:
        """``supported``, ``not supported``, ``undecided``."""
        return str(self.found.attrs["verdict"]) if self.found is not None else "not measured"

    @property
    def supported(self) -> bool:
        """Whether the whole hierarchy holds."""
        return self.verdict == "supported"

    @property
    def levels(self) -> str:
        """Which levels hold, in words, and whether they are no more than those of all channels."""
        attrs = self.found.attrs if self.found is not None else {"levels": "not measured"}
        return headline(str(attrs.get("levels", "not said")), str(attrs.get("specific", "")))

    def warnings(self, channels: Sequence[int], width: Any, grid: tuple[int, int, int]) -> list[str]:
        """What a user of the spec has to know.

        Raises
        ------
        SpecError
            If it was not tested on all of these channels, and `anyway` is False.
        """
        if self.found is None:
            return [NOT_MEASURED]
        said = []
        if not self.supported:
            said.append(
                f"Derived anyway: first frame > boundary > interior is {self.verdict} in this model (found: {self.levels})."
            )
        if self.found.attrs.get("specific") == "no":
            said.append("Ordinary channels show the hierarchy as well; it is not one of massive activations alone.")
        tested = {int(c) for c in self.found["channel"].values} if "channel" in self.found.coords else set()
        untested = sorted(set(channels) - tested)
        if untested:
            words = f"The hierarchy of channels {', '.join(map(str, untested))} was not tested."
            if not self.anyway:
                raise SpecError(
                    f"a STAS spec was not derived. {words} It was tested on {', '.join(map(str, sorted(tested)))}. Test those of "
                    f"the spec, by hierarchy(recording, channels={sorted(channels)}) or with the spec's criterion=…, or derive "
                    "it anyway with `anyway=True` (`--anyway`); the spec then says so."
                )
            said.append(words)
        tested_width = self.found.attrs.get("boundary_width")
        if tested_width is not None and int(tested_width) != _tokens(width, own_grid(self.found, grid)):
            said.append(f"The hierarchy was tested with a boundary width of {tested_width} tokens.")
        return said

    def notes(self) -> dict[str, Any]:
        """JSON-able, for the evidence."""
        if self.found is None:
            return {"verdict": "not measured", "reason": NOT_MEASURED}
        attrs = self.found.attrs
        said = {key: _plain(attrs[key]) for key in _SAID if key in attrs}
        return said | {
            "derived_anyway": self.anyway and not self.supported,
            "channels": [int(c) for c in self.found["channel"].values] if "channel" in self.found.coords else [],
            "contrasts": self._contrasts(),
        }

    def _contrasts(self) -> dict[str, Any]:
        assert self.found is not None
        if "contrast" not in self.found.coords:
            return {}
        names = ("overall", "overall_low", "overall_high", "overall_p_corrected")
        out: dict[str, Any] = {}
        for i, name in enumerate(map(str, self.found["contrast"].values)):
            here = self.found.isel(contrast=i)
            out[name] = {key: rounded(here[key]) for key in names if key in here}
            if "contrast_verdict" in here:
                out[name]["verdict"] = str(here["contrast_verdict"].values)
        return out


def _tokens(width: Any, grid: tuple[int, int, int]) -> int | None:
    """A width as a spec has it, in tokens; None if it is none, which the spec itself says when it is made."""
    try:
        return BoundaryWidth.model_validate(width).tokens(grid)
    except ValidationError:
        return None


def _plain(value: Any) -> Any:
    """An attribute as JSON can hold it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return value if isinstance(value, (str, int, float, bool, list, dict)) or value is None else str(value)


def width_evidence(
    asked: Any,
    grid: tuple[int, int, int],
    *,
    recording: xr.Dataset,
    hierarchy: xr.Dataset | None = None,
    profile: xr.Dataset | None = None,
) -> tuple[Any, str, str]:
    """Return the boundary width as a spec has it, its provenance, and where it comes from in words.

    What the profile proposes, if it does; else what the hierarchy was tested with; else the recording's; each in tokens of its own
    grid, and carried over to another by `scaled`. What is given stays as it is given.
    """
    if not (isinstance(asked, str) and asked == "auto"):
        given = isinstance(asked, Integral) and not isinstance(asked, bool)
        return ({"unit": "tokens", "value": int(asked)} if given else asked), "given", "given"
    if profile is not None and int(profile.attrs["proposed_width"]):
        tokens, low, high = (int(profile.attrs[f"{which}_width{end}"]) for which, end in _PROPOSED)
        return (
            scaled(tokens, own_grid(profile, grid)),
            "measured",
            f"measured: the profile of |h| proposes {tokens} tokens, {low} to {high}",
        )
    places = {"the hierarchy": hierarchy.attrs if hierarchy is not None else {}, "the recording": recording.attrs}
    what = next((name for name, attrs in places.items() if "boundary_width" in attrs), "the workbench")
    if what in places:
        tokens = int(places[what]["boundary_width"])
        said = str(places[what].get("boundary_width_source", "given"))
    else:
        tokens, said = default_width(grid)
    kind = "a choice: one row of tokens" if said == ONE_ROW else f"of {what}: {said}"
    provenance = "default" if said.startswith("default") else "given"
    where = own_grid(hierarchy, grid) if what == "the hierarchy" else grid
    return scaled(tokens, where), provenance, f"{kind}; the paper's portion is not established (methods.md, B.3)"


_PROPOSED = (("proposed", ""), ("best", "_low"), ("best", "_high"))


def scaled(tokens: int, grid: tuple[int, int, int]) -> dict[str, Any]:
    """A width in tokens of a grid as a spec has it, which is used on other grids, too.

    In rows, where it is a whole number of them, else as a fraction of a frame's tokens. On this grid both are exactly these tokens.
    """
    rows, rest = divmod(tokens, grid[2])
    return {"unit": "fraction", "value": tokens / (grid[1] * grid[2])} if rest else {"unit": "rows", "value": rows}


def own_grid(found: xr.Dataset | None, grid: tuple[int, int, int]) -> tuple[int, int, int]:
    """The token grid that a result was measured on; `grid` where it does not say."""
    frames, rows, columns = (int(n) for n in (found.attrs.get("token_grid", grid) if found is not None else grid))
    return frames, rows, columns


def profile_notes(profile: xr.Dataset | None, model: Mapping[str, Any]) -> dict[str, Any]:
    """What the profile said, for the evidence.

    Raises
    ------
    SpecError
        If it is no result of `workbench.analysis.profile.profile`, or is of another model.
    """
    if profile is None:
        return {}
    if profile.attrs.get("analysis") != "profile" or "proposed_width" not in profile.attrs:
        raise SpecError(
            f"`profile` is no result of the analysis of that name (its analysis is {profile.attrs.get('analysis')!r}). Pass "
            "what `profile(recording)` returned, or nothing."
        )
    same_model(profile, model, "the profile", error=SpecError)
    keys = ("verdict", "verdict_reason", "proposed_width", "best_width", "best_width_low", "best_width_high", "version")
    return {"profile": {key: _plain(profile.attrs[key]) for key in keys if key in profile.attrs}}
