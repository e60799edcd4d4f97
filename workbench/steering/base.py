"""What every spec has, how one is made and checked, and what is said where something is wrong in it."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from workbench.errors import SpecError
from workbench.steering.canonical import canonical, sha256
from workbench.steering.parts import NUMBER, SCHEDULE, Evidence, ModelRef, Recommended, Strict, Text, Window

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
        unhashed = validated(cls, data | {"content_hash": "sha256:" + "0" * 64}, context=_UNHASHED)
        return validated(cls, data | {"content_hash": unhashed._hash()})

    def replace(self, **changes: Any) -> Self:
        """Return a spec with some fields changed and a new content hash; the evidence stays as it was."""
        data = self.model_dump(mode="json", exclude={"content_hash", "format", "spec_version", "method"})
        return self.create(**(data | changes))

    def to_json(self) -> str:
        """Return the text that `save_spec` writes."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def validated(cls: type[S], data: dict[str, Any], context: dict[str, Any] | None = None) -> S:
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
