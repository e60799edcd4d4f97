"""What a preset says of one published model, and how its transformer is built without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.models.layout import Layout, Pipeline
from workbench.models.rows import FAMILIES

if TYPE_CHECKING:
    import torch

#: How well a fact is established: tag → meaning.
STANDINGS = {
    "P": "the paper, its authors' page or their own code",
    "2nd": "a second-hand summary, not checked against the paper",
    "3rd": "somebody else's code or measurement",
    "INF": "inferred",
    "KNOW": "general knowledge, not checked",
}


@dataclass(frozen=True)
class Fact:
    """Something that a paper, or somebody else, says of a model.

    Attributes
    ----------
    about : str
        ``"channels"``: the massive channels, counted from 0. ``"block"``: one that was used or is suggested. ``"window"``: the
        steps or noise levels. Anything else is a remark.
    says : str
        In words.
    standing : str
        One of `STANDINGS`.
    source : str
        Where it was said.
    channels : tuple of int
        For ``"channels"``; empty if none were found.
    """

    about: str
    says: str
    standing: str
    source: str
    channels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Preset:
    """One published model.

    Attributes
    ----------
    name : str
        Short name, as users type it.
    title : str
    hub : str
        Id on the hub, ``owner/name``, of a diffusers folder.
    family : str
        Of its row.
    pipeline : str
        Its own stock pipeline; one of the row's.
    config : mapping
        Arguments of the transformer that differ from its class's defaults, or say how large it is.
    source : str
        How sure the config is; one of `STANDINGS`.
    published : float
        Parameters of one transformer, in billions: as named by its authors, or from the size of its weights where the name
        rounds by more than a tenth.
    height, width, frames : int
        Default size in pixels; 1 frame for images. This, steps and scale are what the pipeline or the model's card has: general
        knowledge, not checked.
    pixels : int
        Along one side of what the transformer is given as one latent.
    steps : int
        Default number of denoising steps.
    guided : bool
        True if it is made to run with a branch without the prompt.
    scale : float
        Default guidance scale.
    others : tuple of (name, billions)
        Parameters of text encoders and VAE. General knowledge, not checked.
    facts : tuple of Fact
    settings : mapping
        Of the pipeline's own config.
    experts : int
        Transformers, of which each step is one's.
    transformer_alone : bool
        True if the hub holds the transformer without the pipeline around it.
    remark : str
    """

    name: str
    title: str
    hub: str
    family: str
    pipeline: str
    config: Mapping[str, Any]
    source: str
    published: float
    height: int
    width: int
    pixels: int
    steps: int
    scale: float
    others: tuple[tuple[str, float], ...]
    facts: tuple[Fact, ...] = ()
    frames: int = 1
    guided: bool = True
    settings: Mapping[str, Any] | None = None
    experts: int = 1
    transformer_alone: bool = False
    remark: str = ""

    @property
    def layout(self) -> Layout:
        """The row of its family."""
        return next(row for row in FAMILIES if row.family == self.family)

    @property
    def entry(self) -> Pipeline:
        """What the row says of its pipeline."""
        entry = self.layout.pipeline(self.pipeline)
        assert entry is not None, f"{self.pipeline} is not in the row {self.family}"
        return entry

    @property
    def channels(self) -> tuple[int, ...]:
        """Massive channels that were reported, by anybody."""
        return tuple(channel for fact in self.facts for channel in fact.channels)

    @property
    def branches(self) -> tuple[str, ...]:
        """Branches of a run with the default guidance."""
        guidance = self.entry.guidance
        return guidance.rows if guidance is not None and self.guided else ("cond",)

    def transformer(self) -> torch.nn.Module:
        """The transformer at its true configuration, on the meta device: shapes without numbers. Needs no download."""
        import diffusers
        import torch

        kind = getattr(diffusers, self.layout.transformer.rsplit(".", 1)[1])
        with torch.device("meta"):
            model: torch.nn.Module = kind(**self.config)
        return model


def weights_of(model: torch.nn.Module) -> int:
    """How many numbers the weights file of a model holds."""
    return sum(value.numel() for value in model.state_dict().values())
