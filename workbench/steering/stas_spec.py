"""The spec of STAS."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from workbench.errors import RoleError, SpecError
from workbench.steering.base import Spec
from workbench.steering.parts import LayerPath, Recommended, Strict, Text

MAX_LAYERS = 256

Alpha = Annotated[float, Field(ge=0.0, le=100.0)]
Branch = Literal["cond", "uncond"]
Size = Annotated[int, Field(ge=1, le=1 << 16)]


class BoundaryWidth(Strict):
    """How many tokens at the head, and as many at the tail, of every later latent frame's run are boundary tokens.

    The grid is the call's. A fraction is the same part of the picture at every resolution; a number of rows is as many rows of tokens
    however many there are; a number of tokens means neither, and is never derived, only given.
    """

    unit: Literal["tokens", "rows", "fraction"] = Field(
        description="`tokens`; `rows` of the token grid; `fraction` of the tokens of a frame"
    )
    value: Annotated[float, Field(gt=0.0, le=1 << 20)] = Field(
        description="a whole number of tokens or rows, or a fraction below one half"
    )

    @model_validator(mode="after")
    def _meant(self) -> Self:
        if self.unit == "fraction" and self.value >= 0.5:
            raise ValueError(f"a fraction of {self.value:g} at each end leaves no interior; give less than 0.5")
        if self.unit != "fraction" and not self.value.is_integer():
            raise ValueError(f"{self.value:g} {self.unit} is not a whole number; give one, or the unit `fraction`")
        return self

    def tokens(self, grid: tuple[int, int, int]) -> int:
        """Return the width in tokens for a token grid (F, H, W): the nearest number, at least 1, that the unit means."""
        _, rows, columns = grid
        if self.unit == "tokens":
            return int(self.value)
        if self.unit == "rows":
            return int(self.value) * columns
        return max(1, math.floor(self.value * rows * columns + 0.5))


class RecommendedVideo(Recommended):
    """Settings of the pipeline call that the evidence was taken at, and where each choice of the spec comes from."""

    height: Size | None
    width: Size | None
    num_frames: Size | None
    source: dict[Text, Annotated[str, Field(max_length=400)]] = Field(
        max_length=32, description="choice -> where its value comes from, in words; for people"
    )


class StasSpec(Spec):
    """STAS (arXiv 2603.17825): ``h <- alpha max|h| sign(h)`` in the state that leaves the chosen blocks.

    At the massive channels of first-frame and boundary tokens, in the pipeline's own passes. The maximum is over all video
    tokens of the sample.
    """

    METHOD: ClassVar[str] = "stas"

    method: Literal["stas"]
    layers: tuple[LayerPath, ...] = Field(
        min_length=1,
        max_length=MAX_LAYERS,
        description="full module paths, inside the transformer, of the blocks whose leaving state is changed; each once",
    )
    action: Literal["steer", "scale", "zero"] = Field(
        description="`steer`: alpha max|h| sign(h), the method; `scale`: alpha h, and `zero`: 0, the paper's comparisons"
    )
    alpha_first: Alpha | None = Field(description="alpha of the first frame's tokens; null: they are left alone")
    alpha_boundary: Alpha | None = Field(
        description="alpha of the head and tail tokens of every later frame; null: they are left alone"
    )
    alpha_interior: Alpha | None = Field(
        description="alpha of all other tokens: null in the method, a number in the paper's control of all tokens"
    )
    boundary_width: BoundaryWidth
    reference: Literal["channel", "joint"] = Field(
        description="max|h| over all tokens of a sample: of each channel, or of all channels together"
    )
    branches: tuple[Branch, ...] = Field(min_length=1, description="passes that are changed; cond before uncond")
    recommended: RecommendedVideo

    @classmethod
    def create(cls, **fields: Any) -> Self:
        """Make a spec; an alpha that is not given is null. See `Spec.create`."""
        return super().create(**({"alpha_first": None, "alpha_boundary": None, "alpha_interior": None} | fields))

    @model_validator(mode="after")
    def _meant(self) -> Self:
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers must be there once each, not {list(self.layers)}")
        if list(self.branches) != sorted(set(self.branches)):
            raise ValueError(f"branches must be ['cond'], ['uncond'] or ['cond', 'uncond'], not {list(self.branches)}")
        unused = [alpha for alpha in self.alphas.values() if alpha]
        if self.action == "zero" and unused:
            raise ValueError(
                f"with the action `zero`, an alpha of 0 names a role and null leaves it out; {unused[0]:g} means nothing"
            )
        return self

    @property
    def alphas(self) -> dict[str, float | None]:
        """Role -> its alpha."""
        return {"first": self.alpha_first, "boundary": self.alpha_boundary, "interior": self.alpha_interior}

    @property
    def idle(self) -> bool:
        """Whether it does nothing at any step, so that none has to be looked up."""
        nothing = 1.0 if self.action == "scale" else None
        return all(alpha is None or alpha == nothing for alpha in self.alphas.values())

    def width_on(self, grid: tuple[int, int, int]) -> int:
        """Return the boundary width in tokens on a token grid (F, H, W).

        Raises
        ------
        SpecError
            If there is one frame only, or the width leaves no interior.
        """
        from workbench.roles import roles_of_grid

        width = self.boundary_width.tokens(grid)
        try:
            roles_of_grid(grid, width)
        except RoleError as error:
            given = f"{self.boundary_width.value:g} {self.boundary_width.unit}"
            raise SpecError(
                f"the spec can't act on a grid of {grid[0]} x {grid[1]} x {grid[2]} tokens (frames, rows, columns) with "
                f"boundary_width {given}: {error} Make a larger video, or `spec.replace(boundary_width=...)`."
            ) from error
        return width


__all__ = ["BoundaryWidth", "RecommendedVideo", "StasSpec"]
