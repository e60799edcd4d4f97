"""Are two things of one model? The one check of recordings, measured tables, analyses and specs against each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from workbench.errors import WorkbenchError

KEYS = ("transformer_class", "config_hash", "weight_hash")
"""What identifies a model, of `workbench.models.fingerprint`; hub id and revision may differ between equal ones."""


def model_of(thing: Any) -> dict[str, Any] | None:
    """Return the fingerprint of the model that something is of, `KEYS` of it; None if it does not say.

    Parameters
    ----------
    thing : xarray.Dataset or mapping
        A recording, what `disrupt`, `sweep` or `baselines` measured, an analysis of one of these; a spec as a mapping; or
        a fingerprint itself.
    """
    attrs = getattr(thing, "attrs", thing)
    if not isinstance(attrs, Mapping):
        return None
    settings = _mapping(attrs.get("settings"))
    places = (attrs.get("model"), settings.get("model"), attrs.get("recording_model"), attrs)
    for place in map(_mapping, places):
        if "transformer_class" in place:
            return {key: place.get(key) for key in KEYS}
    return None


def same_model(
    one: Any, other: Any, what: str, than: str = "the recording", *, error: type[WorkbenchError] = WorkbenchError
) -> None:
    """Refuse what is of another model.

    Parameters
    ----------
    one, other
        As `model_of` takes them.
    what, than : str
        What they are, for the message: ``"the sweep"``, ``"the recording"``.
    error : type
        What is raised.

    Raises
    ------
    WorkbenchError
        Or `error`: if the models differ, or one of the two does not say its model.
    """
    ours, theirs = model_of(one), model_of(other)
    for name, found in ((what, ours), (than, theirs)):
        if found is None:
            raise error(
                f"{name} does not say which model it is of, so it can't be checked against {than if name == what else what}. "
                "Make it again with this version of the workbench."
            )
    if ours != theirs:
        raise error(
            f"{what} is of another model ({_line(ours)}) than {than} ({_line(theirs)}). Use what was made of one model, or make "
            "it again."
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    """A mapping, or one written as JSON; anything else counts as empty."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def _line(model: Mapping[str, Any] | None) -> str:
    model = model or {}
    return f"{model.get('transformer_class')}, config {model.get('config_hash')}, weights {model.get('weight_hash')}"
