"""The spec: one JSON file that says exactly what a steering method does to which model, and on what evidence.

`docs/spec.md` explains every key, `docs/spec.schema.json` is generated from here. This module imports neither torch
nor diffusers, so that a spec can be read, checked and written anywhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from workbench.errors import SpecError
from workbench.steering.canonical import canonical, read_object, sha256, write_atomic
from workbench.steering.parts import (
    NUMBER,
    SCHEDULE,
    Action,
    Evidence,
    ModelRef,
    Recommended,
    RetentionOrSchedule,
    Schedule,
    Strict,
    Text,
    WeightOrSchedule,
    Window,
    always,
    value_at,
)

FORMAT = "workbench-spec"
SPEC_VERSION = 2
MAX_CHANNELS = 256

S = TypeVar("S", bound="Spec")

# Validation context of a spec whose hash is still to be taken; compared by identity.
_UNHASHED: dict[str, Any] = {"unhashed": True}


class Spec(Strict):
    """What every spec has. A method is a subclass; `content_hash` covers all other keys.

    All keys are required, so that a spec says everything itself and no default of a later version changes it.
    """

    format: Literal["workbench-spec"]
    spec_version: Literal[2]
    method: str
    model: ModelRef
    layer: Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$")] = Field(
        description="full module path, inside the transformer, of block m"
    )
    channels: tuple[Annotated[int, Field(ge=0, lt=1 << 20)], ...] = Field(
        min_length=1, max_length=MAX_CHANNELS, description="hidden-state channels, ascending, each once"
    )
    window: Window
    recommended: Recommended
    evidence: Evidence
    created_by: dict[Text, Text] = Field(max_length=16, description="versions of the software that wrote the spec")
    content_hash: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]

    METHOD: ClassVar[str]

    @field_validator("channels")
    @classmethod
    def _ascending(cls, channels: tuple[int, ...]) -> tuple[int, ...]:
        if list(channels) != sorted(set(channels)):
            raise ValueError("channels must be ascending, each once")
        return channels

    @model_validator(mode="after")
    def _hashed(self, info: ValidationInfo) -> Self:
        if info.context is not _UNHASHED:
            self.verify()
        return self

    def _hash(self) -> str:
        return sha256(self.model_dump(mode="json", exclude={"content_hash"}))

    def verify(self) -> None:
        """Raise `SpecError` if the content is not what `content_hash` was taken of."""
        actual = self._hash()
        if actual != self.content_hash:
            raise SpecError(
                f"content_hash is {self.content_hash}, but the content has {actual}: the spec was altered after it "
                "was written. Get the original, derive it again, or change it with `spec.replace(...)`."
            )

    @classmethod
    def create(cls, **fields: Any) -> Self:
        """Make a spec: format, version, method and content hash are filled in, everything else is given.

        Raises
        ------
        SpecError
            If a field is missing, unknown or not valid; the message says which.
        """
        data: dict[str, Any] = {
            "format": FORMAT,
            "spec_version": SPEC_VERSION,
            "method": cls.METHOD,
            **{key: _plain(value) for key, value in fields.items()},
        }
        # The hash is taken of validated content, because validation settles how a number is written (1 -> 1.0).
        unhashed = _validated(cls, data | {"content_hash": "sha256:" + "0" * 64}, context=_UNHASHED)
        return _validated(cls, data | {"content_hash": unhashed._hash()})

    def replace(self, **changes: Any) -> Self:
        """Return a spec with some fields changed and a new content hash; the evidence stays as it was."""
        data = self.model_dump(mode="json", exclude={"content_hash", "format", "spec_version", "method"})
        return self.create(**(data | changes))

    def to_json(self) -> str:
        """Return the text that `save_spec` writes."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


class DetailGuidanceSpec(Spec):
    """Detail Guidance (arXiv 2510.11538): ``D = D_u + s (D_c - D_u) + w (D_c - D_m)``.

    ``D_m`` is the conditional pass in which `action` is done to `channels` in the image-token state entering block m
    (`layer`).
    """

    METHOD: ClassVar[str] = "detail_guidance"

    method: Literal["detail_guidance"]
    action: Action = Field(
        description="what is done to the channels in the degraded pass: `zero` (arXiv 2510.11538); `scale`, times the "
        "retention (its follow-up, arXiv 2607.02968); `mean`, the mean over the image tokens of each sample and channel"
    )
    retention: RetentionOrSchedule | None = Field(
        description="rho of the action `scale`, constant or by noise level, 1 = nothing is done; null for other actions"
    )
    branch: Literal["cond"] = Field(description="the pass that is degraded")
    weight: WeightOrSchedule = Field(description="w, constant or by noise level; where it is 0 the method does nothing")

    @model_validator(mode="after")
    def _retained(self) -> Self:
        if (self.action == "scale") != (self.retention is not None):
            raise ValueError(
                f"action {self.action!r} with retention = {self.retention}: `scale` needs a retention, and the other "
                "actions have none (null)"
            )
        return self

    @property
    def idle(self) -> bool:
        """Whether it does nothing at any noise level, so that no step has to be looked up."""
        return always(self.weight, 0.0) or (self.retention is not None and always(self.retention, 1.0))

    @property
    def constant(self) -> bool:
        """Whether it does the same at every step, so that none has to be looked up."""
        return (
            self.window.everywhere
            and not isinstance(self.weight, Schedule)
            and not isinstance(self.retention, Schedule)
        )

    def weight_at(self, sigma: float) -> float:
        """Return w at a noise level."""
        return value_at(self.weight, sigma)

    def retention_at(self, sigma: float) -> float:
        """Return rho at a noise level; 0 for the actions that have none."""
        return 0.0 if self.retention is None else value_at(self.retention, sigma)


METHODS: dict[str, type[Spec]] = {DetailGuidanceSpec.METHOD: DetailGuidanceSpec}


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
    return _validated(METHODS[method], data)


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
    """Return the JSON Schema (draft 2020-12) of a spec. The content hash and the order of channels it can't check."""
    schema = DetailGuidanceSpec.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _validated(cls: type[S], data: dict[str, Any], context: dict[str, Any] | None = None) -> S:
    """Validate as JSON: there lists are tuples, while strictness about numbers and strings stays."""
    try:
        text = canonical(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError(f"the spec cannot be written as JSON: {str(error)[:200]}") from error
    try:
        return cls.model_validate_json(text, context=context)
    except ValidationError as error:
        raise SpecError(_explain(error, cls)) from None


def _explain(error: ValidationError, cls: type[BaseModel]) -> str:
    """Say in one line which key is wrong, what is valid, and what to do."""
    problems = error.errors(include_url=False)
    first = problems[0]
    path = [part for part in first["loc"] if part not in (NUMBER, SCHEDULE)]
    where = ".".join(map(str, path)) or "the spec"
    if first["type"] == "extra_forbidden":
        valid = _keys(cls, path[:-1])
        message = f"unknown key `{where}`; valid: {', '.join(valid)}. Remove it, or update the workbench."
    elif first["type"] == "missing":
        message = f"key `{where}` is missing; every key is required. Derive the spec again."
    elif "content_hash" in (text := first["msg"].removeprefix("Value error, ")):
        message = text
    else:
        shown = repr(first["input"])
        message = f"`{where}`: {text} (got {shown if len(shown) <= 80 else shown[:77] + '...'}). See docs/spec.md."
    return message + (f" ({len(problems) - 1} more)" if len(problems) > 1 else "")


def _keys(cls: type[BaseModel], path: list[int | str]) -> list[str]:
    """Return the keys of the model that sits at `path` inside `cls`."""
    for part in path:
        cls = _model_in(cls.model_fields[str(part)].annotation) or cls
    return sorted(cls.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, also as one of several kinds of value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


__all__ = ["FORMAT", "METHODS", "SPEC_VERSION", "DetailGuidanceSpec", "Evidence", "ModelRef", "Recommended", "Spec"]
__all__ += ["Window", "json_schema", "load_spec", "parse_spec", "save_spec"]


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
