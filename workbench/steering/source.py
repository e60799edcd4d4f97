"""What every derived spec says of where it came from: model, recording, software, numbers of its channels."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from workbench.errors import SpecError
from workbench.steering.choose import index_of


def model_of_recording(recording: xr.Dataset) -> dict[str, Any]:
    """Model that the recording is of, as a spec names it."""
    model, layout = recording.attrs.get("model"), recording.attrs.get("layout")
    if not isinstance(model, Mapping) or not isinstance(layout, Mapping):
        raise SpecError(
            "the recording does not say which model it is of (attributes `model` and `layout`), so a spec could not be "
            "checked against one. Open it with `workbench.open(path)`, or record it again."
        )
    keys = ("transformer_class", "config_hash", "weight_hash", "repo", "revision")
    return {"family": layout.get("family"), **{key: model.get(key) for key in keys}}


def warning(found: xr.Dataset) -> str:
    """What a spec says of itself if `locate` decided nothing."""
    return f"The analysis decided nothing; what is left at 'auto' is its best guess. {found.attrs['verdict_reason']}"


def numbers(found: xr.Dataset, criterion: str, layer: int | None, channel: int) -> dict[str, Any]:
    """Numbers of one channel in the state after a recorded layer (by index); six digits are more than the samples carry."""
    here = found.isel(channel=index_of(found, [channel])[0])
    found_here: dict[str, Any] = {
        "channel": channel,
        "massive_in_model": bool(here["massive_channel"].sel(criterion=criterion)),
        "layer_recurrence": rounded(here["layer_recurrence"].sel(criterion=criterion)),
    }
    if layer is None:
        return found_here
    at = here.isel(layer=layer)
    names = ("magnitude", "ratio_to_median", "ratio_to_median_low", "ratio_to_median_high", "dominance")
    return found_here | {
        "layer": str(at["layer"].values),
        "massive_here": bool(at["massive"].sel(criterion=criterion)),
        "sign": int(at["sign"]),
        **{name: rounded(at[name]) for name in names},
    }


def plain(value: Any) -> Any:
    """A number of numpy's as one of Python's; anything else is the spec's to check."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else value


def rounded(value: Any) -> float | None:
    """Six digits of a number; None if it is not finite."""
    number = float(value)
    return float(f"{number:.6g}") if np.isfinite(number) else None


def store_of(recording: xr.Dataset) -> dict[str, Any]:
    """What identifies the recording; its folder's name, but not where that lies on this machine."""
    attrs = recording.attrs
    named = {"name": Path(str(attrs["path"])).name} if "path" in attrs else {}
    keys = ("schema_version", "settings_fingerprint", "tier", "dtype", "git_revision")
    return named | {key: attrs.get(key) for key in keys}


def versions() -> dict[str, str]:
    """Versions of the software that derives."""
    found = {}
    for name in ("dit-workbench", "numpy", "xarray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
