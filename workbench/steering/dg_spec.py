"""The spec of Detail Guidance."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from workbench.steering.base import Spec
from workbench.steering.parts import (
    Action,
    LayerPath,
    RetentionOrSchedule,
    Schedule,
    WeightOrSchedule,
    always,
    value_at,
)


class DetailGuidanceSpec(Spec):
    """Detail Guidance (arXiv 2510.11538): ``D = D_u + s (D_c - D_u) + w (D_c - D_m)``.

    ``D_m`` is the conditional pass in which `action` is done to `channels` in the image-token state entering block m
    (`layer`).
    """

    METHOD: ClassVar[str] = "detail_guidance"

    method: Literal["detail_guidance"]
    layer: LayerPath = Field(description="full module path, inside the transformer, of block m")
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
