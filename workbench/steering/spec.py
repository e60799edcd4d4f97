"""The spec: one JSON file that says exactly what a steering method does to which model, and on what evidence.

`docs/spec.md` explains every key, `docs/spec.schema.json` is generated from here. This module imports neither torch
nor diffusers, so that a spec can be read, checked and written anywhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from workbench.errors import SpecError
from workbench.steering.base import FORMAT, MAX_CHANNELS, SPEC_VERSION, Spec, validated
from workbench.steering.canonical import read_object, write_atomic
from workbench.steering.dg_spec import DetailGuidanceSpec
from workbench.steering.parts import Evidence, ModelRef, Recommended, Window
from workbench.steering.stas_spec import BoundaryWidth, RecommendedVideo, StasSpec

METHODS: dict[str, type[Spec]] = {kind.METHOD: kind for kind in (DetailGuidanceSpec, StasSpec)}


def load_spec(path: str | Path) -> Spec:
    """Read and check a spec.

    Parameters
    ----------
    path : str or Path
        A JSON file of at most 1 MiB.

    Returns
    -------
    Spec
        Of the class that its `method` names.

    Raises
    ------
    SpecError
        If the file is not such a spec; the message names the key, what is valid, and what to do.
    """
    data = read_object(path)
    try:
        return parse_spec(data)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def parse_spec(data: dict[str, Any]) -> Spec:
    """Check a spec that is already a dict of JSON values; see `load_spec`."""
    if data.get("format") != FORMAT:
        raise SpecError(f"`format` is {data.get('format')!r}; a spec has {FORMAT!r}. Is this another kind of file?")
    version = data.get("spec_version")
    if type(version) is not int or version != SPEC_VERSION:
        older = type(version) is int and 0 < version < SPEC_VERSION
        raise SpecError(
            f"`spec_version` is {version!r}, and this version of the workbench reads {SPEC_VERSION}. "
            + ("Derive the spec again with this one." if older else "Update the workbench, or derive the spec again.")
        )
    method = data.get("method")
    if not isinstance(method, str) or method not in METHODS:
        raise SpecError(f"`method` is {method!r}; valid: {', '.join(sorted(METHODS))}.")
    return validated(METHODS[method], data)


def save_spec(spec: Spec, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a spec, whole or not at all.

    Parameters
    ----------
    spec : Spec
        Its content hash is checked first.
    path : str or Path
        The file to write.
    overwrite : bool
        Replace a file that is there.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SpecError
        If the file is there and `overwrite` is False, if it can't be written, or the spec was altered.
    """
    spec.verify()
    return write_atomic(spec.to_json(), path, overwrite=overwrite)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a spec, one part a method.

    The content hash it can't check, nor the order of channels, nor which keys go together.
    """
    either: Any = Annotated[DetailGuidanceSpec | StasSpec, Field(discriminator="method")]
    schema = TypeAdapter(either).json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Spec", **schema}


__all__ = ["FORMAT", "MAX_CHANNELS", "METHODS", "SPEC_VERSION", "BoundaryWidth", "DetailGuidanceSpec", "Evidence"]
__all__ += ["ModelRef", "Recommended", "RecommendedVideo", "Spec", "StasSpec", "Window"]
__all__ += ["json_schema", "load_spec", "parse_spec", "save_spec"]


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
