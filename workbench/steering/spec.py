"""The spec: one JSON file that says exactly what a steering method does to which model, and on what evidence.

`docs/spec.md` explains every key, `docs/spec.schema.json` is generated from here. This module imports neither torch
nor diffusers, so that a spec can be read, checked and written anywhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from workbench.errors import SpecError
from workbench.steering.canonical import canonical, depth, read_object, sha256, write_atomic

FORMAT = "workbench-spec"
SPEC_VERSION = 1
MAX_CHANNELS = 256
ROUNDING = 1e-6
"""Schedulers keep noise levels in float32, where 0.6 is 0.60000002; a bound is met within this."""
MAX_EVIDENCE_BYTES = 1 << 18
MAX_EVIDENCE_DEPTH = 8

S = TypeVar("S", bound="Spec")

# Validation context of a spec whose hash is still to be taken; compared by identity.
_UNHASHED: dict[str, Any] = {"unhashed": True}

Action = Literal["zero", "scale", "mean"]
"""What is done to the channels: `workbench.steering.edits.edit_channels`."""

Text = Annotated[str, Field(max_length=200)]
Digest = Annotated[str, Field(pattern=r"^[0-9A-Za-z:_-]{1,200}$")]


class _Strict(BaseModel):
    """Frozen, no unknown keys, no conversions (``"1"`` is not a number), no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelRef(_Strict):
    """Which model the spec is for: `workbench.models.fingerprint` and the family."""

    family: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="family of the layout: `sd3`")
    transformer_class: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="class of the DiT")
    config_hash: Digest | None = Field(description="hash of the transformer's config")
    weight_hash: Digest | None = Field(description="hash of a sample of the transformer's weights")
    repo: Text | None = Field(description="hub id or folder name it was loaded from; for people, not compared")
    revision: Text | None = Field(description="revision it was loaded at; for people, not compared")


class Window(_Strict):
    """The denoising steps at which the method works; both ends belong to it."""

    unit: Literal["sigma", "step_fraction"] = Field(
        description="`sigma`: noise level, 1 = pure noise; `step_fraction`: step / number of steps, 0 = first step"
    )
    low: Annotated[float, Field(ge=0.0, le=1.0)]
    high: Annotated[float, Field(ge=0.0, le=1.0)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")
        return self

    @property
    def everywhere(self) -> bool:
        """Whether every step belongs to the window, so that no step has to be looked up."""
        return self.low == 0.0 and self.high == 1.0

    def contains(self, value: float) -> bool:
        """Return whether a step at `value` (in the window's unit) belongs to the window."""
        return self.low - ROUNDING <= value <= self.high + ROUNDING


class Recommended(_Strict):
    """Settings of the pipeline call that the evidence was taken at; None where there is no evidence."""

    guidance_scale: Annotated[float, Field(ge=0.0, le=1000.0)] | None
    steps: Annotated[int, Field(ge=1, le=10_000)] | None


class Evidence(_Strict):
    """Where the spec came from. Free in content, bounded in size; nothing here changes what the method does."""

    criterion: Text | None = Field(description="name of the criterion that said which channels are massive")
    parameters: dict[str, JsonValue] = Field(description="parameters of the criterion and of the rule")
    store: dict[str, JsonValue] = Field(description="the recording: schema version, settings fingerprint, ...")
    n_samples: Annotated[int, Field(ge=0)] | None = Field(description="samples (prompt x seed) in the recording")
    channels: tuple[dict[str, JsonValue], ...] = Field(description="numbers per channel, at the layer that is used")
    rule: Annotated[str, Field(max_length=4000)] = Field(description="the rule in words that chose layer and channels")
    provenance: dict[str, Literal["established", "measured", "undecided", "default", "given"]] = Field(
        description="for every choice: from a paper; from data; from data whose analysis decided nothing (a ranking, "
        "or too few samples); the workbench's default; or given by the user"
    )
    notes: dict[str, JsonValue] = Field(description="anything else")

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        data = self.model_dump(mode="json")
        if depth(data, MAX_EVIDENCE_DEPTH) > MAX_EVIDENCE_DEPTH:
            raise ValueError(f"nests deeper than {MAX_EVIDENCE_DEPTH} levels")
        size = len(canonical(data))
        if size > MAX_EVIDENCE_BYTES:
            raise ValueError(f"has {size} bytes, at most {MAX_EVIDENCE_BYTES} are allowed")
        return self


class Spec(_Strict):
    """What every spec has. A method is a subclass; `content_hash` covers all other keys.

    All keys are required, so that a spec says everything itself and no default of a later version changes it.
    """

    format: Literal["workbench-spec"]
    spec_version: Literal[1]
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

    ``D_m`` is the conditional pass whose image-token state entering block m (`layer`) has `channels` set to zero.
    """

    METHOD: ClassVar[str] = "detail_guidance"

    method: Literal["detail_guidance"]
    action: Literal["zero"] = Field(description="what is done to the channels in the degraded pass")
    branch: Literal["cond"] = Field(description="the pass that is degraded")
    weight: Annotated[float, Field(ge=-100.0, le=100.0)] = Field(description="w; 0 = the method does nothing")


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
        raise SpecError(
            f"`spec_version` is {version!r}, and this version of the workbench reads {SPEC_VERSION}. "
            "Update the workbench, or derive the spec again with this one."
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
    where = ".".join(str(part) for part in first["loc"]) or "the spec"
    if first["type"] == "extra_forbidden":
        valid = _keys(cls, first["loc"][:-1])
        message = f"unknown key `{where}`; valid: {', '.join(valid)}. Remove it, or update the workbench."
    elif first["type"] == "missing":
        message = f"key `{where}` is missing; every key is required. Derive the spec again."
    elif "content_hash" in (text := first["msg"].removeprefix("Value error, ")):
        message = text
    else:
        shown = repr(first["input"])
        message = f"`{where}`: {text} (got {shown if len(shown) <= 80 else shown[:77] + '...'}). See docs/spec.md."
    return message + (f" ({len(problems) - 1} more)" if len(problems) > 1 else "")


def _keys(cls: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the model that sits at `loc` inside `cls`."""
    for part in loc:
        annotation = cls.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            cls = annotation
    return sorted(cls.model_fields)


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
