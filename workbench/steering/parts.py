"""The parts of a spec: each small, frozen and strict. `workbench.steering.spec` puts them together."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag, model_validator

from workbench.steering.canonical import canonical, depth

ROUNDING = 1e-6
"""Schedulers keep noise levels in float32, where 0.6 is 0.60000002; a bound is met within this."""
MAX_KNOTS = 64
MAX_EVIDENCE_BYTES = 1 << 18
MAX_EVIDENCE_DEPTH = 8

Action = Literal["zero", "scale", "mean"]
"""What is done to the channels: `workbench.steering.edits.edit_channels`."""

LayerPath = Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$")]
Text = Annotated[str, Field(max_length=200)]
Digest = Annotated[str, Field(pattern=r"^[0-9A-Za-z:_-]{1,200}$")]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=-100.0, le=100.0)]


class Strict(BaseModel):
    """Frozen, no unknown keys, no conversions (``"1"`` is not a number), no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelRef(Strict):
    """Which model the spec is for: `workbench.models.fingerprint` and the family."""

    family: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="family of the layout: `sd3`")
    transformer_class: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="class of the DiT")
    config_hash: Digest | None = Field(description="hash of the transformer's config")
    weight_hash: Digest | None = Field(description="hash of a sample of the transformer's weights")
    repo: Text | None = Field(description="hub id or folder name it was loaded from; for people, not compared")
    revision: Text | None = Field(description="revision it was loaded at; for people, not compared")


class Window(Strict):
    """The denoising steps at which the method works; both ends belong to it."""

    unit: Literal["sigma", "step_fraction"] = Field(
        description="`sigma`: noise level, 1 = pure noise; `step_fraction`: step / number of steps, 0 = first step"
    )
    low: Unit
    high: Unit

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


class Schedule(Strict):
    """A number that changes with the noise level: straight lines between knots, constant beyond the first and last."""

    knots: tuple[tuple[Unit, float], ...]

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        sigmas = [sigma for sigma, _ in self.knots]
        if any(later - earlier <= 2 * ROUNDING for earlier, later in pairwise(sigmas)):
            raise ValueError(f"the noise levels of the knots must ascend, by more than {2 * ROUNDING:g}, not {sigmas}")
        return self

    def at(self, sigma: float) -> float:
        """Return the value at a noise level; exactly a knot's own within `ROUNDING` of it."""
        for knot, value in self.knots:
            if abs(sigma - knot) <= ROUNDING:
                return value
        for (low, first), (high, second) in pairwise(self.knots):
            if low < sigma < high:
                return first + (second - first) * ((sigma - low) / (high - low))
        return self.knots[0][1] if sigma < self.knots[0][0] else self.knots[-1][1]


class WeightSchedule(Schedule):
    """w by noise level."""

    knots: tuple[tuple[Unit, Weight], ...] = Field(
        min_length=2, max_length=MAX_KNOTS, description="[sigma, w], sigma ascending; linear between, constant beyond"
    )


class RetentionSchedule(Schedule):
    """rho_t by noise level."""

    knots: tuple[tuple[Unit, Unit], ...] = Field(
        min_length=2, max_length=MAX_KNOTS, description="[sigma, rho], sigma ascending; linear between, constant beyond"
    )


NUMBER, SCHEDULE = "number", "schedule"


def _kind(value: object) -> str:
    return SCHEDULE if isinstance(value, (dict, Schedule)) else NUMBER


WeightOrSchedule = Annotated[
    Annotated[Weight, Tag(NUMBER)] | Annotated[WeightSchedule, Tag(SCHEDULE)], Discriminator(_kind)
]
RetentionOrSchedule = Annotated[
    Annotated[Unit, Tag(NUMBER)] | Annotated[RetentionSchedule, Tag(SCHEDULE)], Discriminator(_kind)
]


def value_at(number: float | Schedule, sigma: float) -> float:
    """Return the value at a noise level, which doesn't matter to a constant."""
    return number.at(sigma) if isinstance(number, Schedule) else number


def always(number: float | Schedule, value: float) -> bool:
    """Tell whether it has this value at every noise level."""
    values = {at for _, at in number.knots} if isinstance(number, Schedule) else {number}
    return values == {value}


class Recommended(Strict):
    """Settings of the pipeline call that the evidence was taken at; None where there is no evidence."""

    guidance_scale: Annotated[float, Field(ge=0.0, le=1000.0)] | None
    steps: Annotated[int, Field(ge=1, le=10_000)] | None


class Evidence(Strict):
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
