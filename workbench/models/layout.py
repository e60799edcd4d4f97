"""What each diffusion-transformer family looks like: one frozen row a family (`workbench.models.rows`).

Nothing in a row is executed; it only names modules, arguments and orders, so a row can be read, printed and compared.
Shapes: B rows of the batch, N tokens, C channels, F, H, W frames, rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import torch

#: Where the image (or video) tokens stand in the state of a block.
PLACES = {
    "all": "the state holds image tokens only",
    "first": "they are the first F · H · W tokens",
    "last": "they are the last F · H · W tokens",
    "after_text": "they follow the text of each row, whose length is the row's sum of the transformer's argument `marker`",
    "marked": "they are those where the transformer's argument `marker`, (B, N) or (N,), is true",
}

#: The axes of a block's state. ``(BF)NC``: every frame is a row of the batch; ``(BN)FC``: every place is; ``NC``: one sample.
AXES = ("BNC", "NBC", "(BF)NC", "(BN)FC", "NC")

#: The axes of the latents that the transformer is given. ``BNC`` is packed; ``[CFHW]`` a list with one tensor a row, an image
#: of one frame; I are several images a row (one is supported); in ``BNCfhw`` each token is a patch; W alone is the time of a
#: sound.
LATENTS = ("BCHW", "BCFHW", "BFCHW", "BFHWC", "BNC", "[CFHW]", "[1CFHW]", "BICFHW", "BNCfhw", "BCW", "BWC")

#: Where the axes (B, C, F, H, W) are in latents that have them otherwise.
_FIRST = {"BFCHW": (0, 2, 1, 3, 4), "BFHWC": (0, 4, 1, 2, 3)}

#: Kinds of modulation, and what they mean.
MODULATIONS = {
    "per_block": "every block projects the embedding with a module of its own",
    "shared_table": "one projection for all blocks, and a table of the block is added",
    "shared": "one projection for all blocks",
    "none": "the timestep comes in otherwise",
}


@dataclass(frozen=True)
class Modulation:
    """Where the AdaLN shift, scale and gate of a block's image stream come from.

    Attributes
    ----------
    kind : str
        ``"per_block"``: every block projects ``temb`` with a module of its own, `module` is its path in the block.
        ``"shared_table"``: one projection for all blocks enters each as an argument, and a table of the block is added.
        ``"shared"``: one projection for all blocks enters each as an argument, and nothing is added.
        ``"none"``: none of these; `why` says how the timestep comes in. Then no modulation is recorded, and the causal
        analysis of the timestep embedding refuses the model.
    module : str
        Path of the projection: in the block for ``"per_block"``, else in the transformer. Two paths, separated by a space,
        where attention and feed-forward have one each, in order of execution: their outputs count as one after the other.
    terms : tuple of str
        Names of the parts, in order: of the projection's last axis for ``"per_block"`` and ``"shared"``, (B, M · C) or
        more; of the axis before the channels for ``"shared_table"``, (B, M, C), and for a ``"shared"`` one that gives every
        block terms of its own, (B, M, C) or more. ``shift_msa``, ``scale_msa``, ``gate_msa``, ``shift_mlp``, ``scale_mlp``,
        ``gate_mlp`` or some of them, as the model orders them; those of text tokens that stand between begin with ``text_``.
    argument : str
        Argument that carries it into the block; empty for ``"per_block"``.
    listed : bool
        True if that argument is a list with one tensor (N, B, C) a term, which is the same for all N tokens.
    table : str
        Parameter of the block that is added, (1, M, C) or (M, C); empty except for ``"shared_table"``.
    beyond : tuple of str
        Names of further parts that only some blocks have, after `terms`. Not recorded, but exchanged with the others.
    why : str
        For ``"none"``.
    """

    kind: str
    module: str = ""
    terms: tuple[str, ...] = ()
    argument: str = ""
    listed: bool = False
    table: str = ""
    beyond: tuple[str, ...] = ()
    why: str = ""

    @property
    def modules(self) -> tuple[str, ...]:
        """Paths of the projections, in order of execution."""
        return tuple(self.module.split())

    @property
    def image_terms(self) -> tuple[str, ...]:
        """Those of `terms` that are of the image tokens."""
        return tuple(term for term in self.terms if not term.startswith("text_"))


@dataclass(frozen=True)
class Stack:
    """One list of blocks that run one after another.

    Attributes
    ----------
    path : str
        Attribute path of the ``ModuleList`` in the transformer.
    hidden_output : int or None
        Which element of the block's output tuple is the image stream; None if the output is that tensor itself.
    image : str
        One of `PLACES`.
    marker : str
        Argument of the transformer's call that `image` refers to; empty where it refers to none.
    argument : str
        Name of the block's argument that carries the image stream (or the joint one).
    axes : str
        One of `AXES`, of the state that enters and leaves the block.
    modulation : Modulation or None
        Of this stack, where it differs from the layout's.
    input_image : str
        Where the image tokens stand in the state that *enters* the block, where that differs from `image`.
    """

    path: str
    hidden_output: int | None
    image: str = "all"
    marker: str = ""
    argument: str = "hidden_states"
    axes: str = "BNC"
    modulation: Modulation | None = None
    input_image: str = ""


@dataclass(frozen=True)
class Guidance:
    """How a stock pipeline runs and combines the branches of classifier-free guidance.

    Attributes
    ----------
    batched : bool
        True if one call holds all branches stacked along the batch axis, False if each branch is its own call.
    rows : tuple of str
        Order of the branches along the batch axis, or of the calls of a step.
    linear : bool
        True if the result is ``… + g · cond``, with a number g.
    linear_without : tuple of str
        Settings of the pipeline (attributes, or local variables of its ``__call__``) that must be 0 or false for that.
    gain : str
        g: ``"s"`` for ``u + s (c − u)``, ``"1 + s"`` for ``c + s (c − u)``.
    scale : str
        The pipeline's argument that s is.
    flag : str
        Attribute of the pipeline, or local variable of its ``__call__``, that is true while there are several branches;
        empty for a pipeline that has none and runs them where `scale` is above 1.
    named : bool
        True if every call of its own is made in ``cache_context(branch)``.
    why : str
        Why it is not linear; empty if it is.
    guider : bool
        True if a component of the pipeline, its guider, combines the branches, so that another guider may do so otherwise.
    """

    batched: bool
    rows: tuple[str, ...]
    linear: bool = True
    linear_without: tuple[str, ...] = ()
    gain: str = "s"
    scale: str = "guidance_scale"
    flag: str = "do_classifier_free_guidance"
    named: bool = False
    why: str = ""
    guider: bool = False

    def calls(self, branches: tuple[str, ...]) -> int:
        """How many calls of the transformer a step of the pipeline takes."""
        return 1 if self.batched else len(branches)

    def gain_at(self, guidance_scale: float) -> float:
        """Coefficient of the conditional prediction in the result."""
        return float(guidance_scale) + (1.0 if self.gain == "1 + s" else 0.0)


@dataclass(frozen=True)
class Pipeline:
    """A stock pipeline of a family.

    Attributes
    ----------
    name : str
        Class name.
    guidance : Guidance or None
        None if it has no branches: the scale, if there is one, goes in as an embedding.
    scale : str
        The pipeline's argument for an embedded scale; empty if it takes none.
    condition : str
        What it generates from besides the prompt ("image", "video", "class label", …); empty for the prompt alone.
    frames : str
        The pipeline's argument for the number of frames.
    still : bool
        True if it makes images with a model of videos.
    first : str
        What the first token frame holds, where that is not the video's first frame; then tokens have no roles.
    unit : int
        Pixels that height and width are multiples of, where the pipeline has that fixed; 0 where the VAE's factor and the
        patches say it.
    token_timesteps : bool
        True if it gives every token (or frame) a timestep of its own.
    settings : tuple of (argument, value)
        With which every call is made, because the pipeline would otherwise do what the row does not say.
    """

    name: str
    guidance: Guidance | None
    scale: str = ""
    condition: str = ""
    frames: str = "num_frames"
    still: bool = False
    first: str = ""
    unit: int = 0
    token_timesteps: bool = False
    settings: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class Limit:
    """A configuration that does not fit the row.

    Attributes
    ----------
    key : str
        Of the transformer's config.
    value : object
        That is refused.
    why : str
    """

    key: str
    value: object
    why: str


@dataclass(frozen=True)
class Absent:
    """An argument of the transformer with which the row does not hold.

    Attributes
    ----------
    argument : str
        Refused unless it is None or empty.
    why : str
    """

    argument: str
    why: str


@dataclass(frozen=True)
class Latents:
    """How the transformer is given the latents, and how the token grid follows.

    Attributes
    ----------
    axes : str
        One of `LATENTS`.
    argument : str
        Of the transformer.
    grid : str
        ``"latents"``: from their shape and `patch`; ``"ids"``: from the places of the tokens in argument `source`, (…, N, ≥ 3)
        with columns (…, row, column) at `columns`; ``"shapes"``: from argument `source`, a list of (F, H, W) with the target
        first; ``"arguments"``: from the three arguments `source`, "num_frames height width" say.
    patch : tuple of str
        Config keys of the patch along F, H and W; ``"patch_size.1"`` is an element of a tuple; a number is meant as it stands;
        a key whose value is None counts as 1.
    source : str
    columns : tuple of int
        For ``"ids"``: which columns are frame, row and column (−1: there is none).
    among : tuple of str and int
        For ``"ids"``, where the latents have tokens of text as well: the argument, (B, N), that tells, and its value at those of
        the image; empty where they have none.
    noisy : str
        Config key of the number of channels that are noisy latents, where channels of a condition (an image, a mask) come after
        them; empty, or a key whose value is None, where all are.
    """

    axes: str
    argument: str = "hidden_states"
    grid: str = "latents"
    patch: tuple[str, str, str] = ("1", "patch_size", "patch_size")
    source: str = ""
    columns: tuple[int, int, int] = (-1, 1, 2)
    among: tuple[str, int] | tuple[()] = ()
    noisy: str = ""

    def channels_first(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents as the transformer is given them, as (B, C, H, W), (B, C, F, H, W) or (B, N, C)."""
        if self.axes == "BICFHW":
            return latents[:, 0, :, 0]
        if self.axes == "BNCfhw":
            return latents.flatten(2)
        if self.axes == "[CFHW]":
            return latents.flatten(2, 3) if latents.ndim == 5 else latents
        if self.axes in ("BCW", "BWC"):
            return (latents if self.axes == "BCW" else latents.mT).unsqueeze(2)
        if self.axes == "[1CFHW]":
            return latents[:, 0]
        order = _FIRST.get(self.axes)
        return latents if order is None else latents.permute(order)

    def as_given(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse of `channels_first`."""
        if self.axes == "BICFHW":
            return latents[:, None, :, None]
        if self.axes == "BNCfhw":
            return latents.unflatten(2, (-1, *map(int, self.patch)))
        if self.axes == "[CFHW]":
            return latents.unsqueeze(2)
        if self.axes in ("BCW", "BWC"):
            return latents.squeeze(2) if self.axes == "BCW" else latents.squeeze(2).mT
        if self.axes == "[1CFHW]":
            return latents[:, None]
        order = _FIRST.get(self.axes)
        return latents if order is None else latents.permute([order.index(axis) for axis in range(len(order))])


@dataclass(frozen=True)
class Timestep:
    """How the timestep comes in.

    Attributes
    ----------
    argument : str
        Of the transformer.
    scale, offset : float
        What the pipeline hands over is ``offset + scale · t``, with t the scheduler's timestep.
    embedding : str
        Module whose output is ``temb``, the embedding that the modulation is computed from; empty if there is no single one.
    output : int or None
        Which element of that module's output; None if the output is that tensor itself.
    clean_rows: bool
        True if the embedding, and what is projected from it, may have more rows than the batch: the first B are the batch's,
        the others those of timestep 0, for tokens that are not denoised (text, reference images).
    """

    argument: str = "timestep"
    scale: float = 1.0
    offset: float = 0.0
    embedding: str = ""
    output: int | None = None
    clean_rows: bool = False


@dataclass(frozen=True)
class Layout:
    """One row: everything the workbench needs to know about a family.

    Attributes
    ----------
    family : str
        Short name, as users type it.
    title : str
        What people call it.
    transformer : str
        Module path and class name of the transformer.
    stacks : tuple of Stack
        In order of execution. Blocks of text alone are left out.
    latents : Latents
    timestep : Timestep
    modulation : Modulation
        Of every stack that has none of its own.
    pipelines : tuple of Pipeline
        Stock pipelines of diffusers that the row was checked with; the first is the plain one.
    alternating : bool
        True if the stacks' blocks run in turn (0 of the first, 0 of the second, 1 of the first, …).
    handed_on : bool
        True if every block is given only what the one before it left (no long skips), with the batch as its first axis, so
        that what ran before an edit needn't run again.
    width : tuple of str
        Config keys whose product is C, the number of channels of the hidden state.
    row_lists : tuple of str
        Arguments of the transformer that are lists with one entry a row of the batch.
    rows_second : tuple of str
        Arguments of the transformer that have the batch as their second axis.
    rowless : tuple of str
        Arguments of the transformer that are the same for all rows, and may happen to be as long as the batch.
    limits : tuple of Limit
    absent : tuple of Absent
    causal_time : int
        Pixel frames that a latent frame after the first stands for; 0 for images.
    first_alone : bool
        True if the first latent frame stands for one pixel frame, as of a causal VAE; False if for as many as the others.
    """

    family: str
    title: str
    transformer: str
    stacks: tuple[Stack, ...]
    latents: Latents
    timestep: Timestep
    modulation: Modulation
    pipelines: tuple[Pipeline, ...]
    alternating: bool = False
    handed_on: bool = True
    width: tuple[str, ...] = ("num_attention_heads", "attention_head_dim")
    row_lists: tuple[str, ...] = ()
    rows_second: tuple[str, ...] = ()
    rowless: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    absent: tuple[Absent, ...] = ()
    causal_time: int = 0
    first_alone: bool = True

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of all parts of the modulation that any stack has, the layout's own first."""
        stacks = [self.modulation_of(stack).image_terms for stack in self.stacks]
        return tuple(dict.fromkeys(term for terms in (self.modulation.image_terms, *stacks) for term in terms))

    @property
    def is_video(self) -> bool:
        """Whether the token grid has frames."""
        return self.causal_time > 0

    @property
    def is_sound(self) -> bool:
        """Whether the token grid is of one row, along which the time of a sound runs."""
        return self.latents.axes in ("BCW", "BWC")

    def modulation_of(self, stack: Stack) -> Modulation:
        """Where the blocks of a stack get their modulation."""
        return stack.modulation or self.modulation

    def blocks(self, transformer: torch.nn.Module) -> dict[str, tuple[Stack, torch.nn.Module]]:
        """Full module path → (its stack, the block), in order of execution."""
        lists = [
            [(f"{stack.path}.{i}", (stack, block)) for i, block in enumerate(_blocks(transformer, stack.path))]
            for stack in self.stacks
        ]
        if self.alternating:
            return dict(entry for turn in zip(*lists, strict=True) for entry in turn)
        return dict(entry for blocks in lists for entry in blocks)

    def block_paths(self, transformer: torch.nn.Module) -> list[str]:
        """Full module paths of all blocks, in order of execution."""
        return list(self.blocks(transformer))

    def width_of(self, transformer: torch.nn.Module) -> int:
        """C, the number of channels of the hidden state."""
        config = cast("Mapping[str, int]", transformer.config)
        return math.prod(int(config[key]) for key in self.width)

    def pipeline(self, name: str) -> Pipeline | None:
        """The entry of a pipeline class; None if it has none."""
        return next((pipeline for pipeline in self.pipelines if pipeline.name == name), None)


def _blocks(transformer: torch.nn.Module, path: str) -> Iterable[torch.nn.Module]:
    return cast("Iterable[torch.nn.Module]", transformer.get_submodule(path))
