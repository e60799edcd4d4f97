"""What each diffusion-transformer family looks like: one frozen row a family.

Nothing in a row is executed; it only names modules, arguments and orders, so a row can be read, printed and compared.
`layout_for` finds the row by the exact class of the transformer, because a same-named class of another module may
order its outputs differently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from workbench.errors import UnsupportedModelError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Modulation:
    """Where the AdaLN shift, scale and gate of a block's image stream come from.

    Attributes
    ----------
    kind : str
        ``"per_block"``: every block projects ``temb`` with a module of its own, `module` is its path in the block.
        ``"shared_table"``: one projection for all blocks enters each as an argument, and a table of the block is added.
        ``"shared"``: one projection for all blocks enters each as an argument, and nothing is added.
    module : str
        Path of the projection: in the block for ``"per_block"``, else in the transformer.
    terms : tuple of str
        Names of the parts, in order: of the projection's last axis for ``"per_block"`` and ``"shared"``, (B, M · C) or
        more; of the axis before the channels for ``"shared_table"``, (B, M, C).
    argument : str
        Argument that carries it into the block; empty for ``"per_block"``.
    table : str
        Parameter of the block that is added, (1, M, C) or (M, C); empty except for ``"shared_table"``.
    beyond : tuple of str
        Names of further parts that only some blocks have, after `terms`. Not recorded, but exchanged with the others.
    """

    kind: str
    module: str
    terms: tuple[str, ...]
    argument: str = ""
    table: str = ""
    beyond: tuple[str, ...] = ()


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
        ``"all"`` if that stream holds image tokens only, ``"last"`` if text tokens stand before them.
    modulation : Modulation or None
        Of this stack, where it differs from the layout's.
    """

    path: str
    hidden_output: int | None
    image: str = "all"
    modulation: Modulation | None = None


@dataclass(frozen=True)
class Guidance:
    """How the stock pipeline runs and combines the branches of classifier-free guidance.

    Attributes
    ----------
    batched : bool
        True if one call holds all branches stacked along the batch axis, False if each branch is its own call.
    rows : tuple of str
        Order of the branches along the batch axis (or in time).
    linear : bool
        True if the combination is linear in the conditional prediction.
    """

    batched: bool
    rows: tuple[str, ...]
    linear: bool

    def calls(self, branches: tuple[str, ...]) -> int:
        """How many calls of the transformer a step of the pipeline takes."""
        return 1 if self.batched else len(branches)

    def gain(self, guidance_scale: float) -> float:
        """Coefficient of the conditional prediction in ``u + s (c − u)``, which is s."""
        return float(guidance_scale)


@dataclass(frozen=True)
class Layout:
    """One row: everything the workbench needs to know about a family.

    Attributes
    ----------
    family : str
        Short name, as users type it.
    transformer : str
        Module path and class name of the transformer.
    stacks : tuple of Stack
        In order of execution.
    hidden_argument : str
        Name of the argument that carries the image stream into a block and the latents into the transformer.
    embedding_module : str
        Module whose output is ``temb``, the embedding that the modulation is computed from.
    modulation : Modulation
        Of every stack that has none of its own.
    guidance : Guidance
    patch_size : str
        Config key of the patch size: one number for height and width, or (frames, height, width).
    latents : str
        ``"image"``: (B, C, H, W); ``"video"``: (B, C, F, H, W); ``"packed"``: (B, N, C), with the tokens' places in the
        argument ``img_ids`` (…, N, 4), columns (time, row, column, …).
    timestep_scale : float
        What the pipeline multiplies the scheduler's timestep by before it hands it over.
    embedding_output : int or None
        Which element of that module's output is ``temb``; None if the output is that tensor itself.
    """

    family: str
    transformer: str
    stacks: tuple[Stack, ...]
    hidden_argument: str
    embedding_module: str
    modulation: Modulation
    guidance: Guidance
    patch_size: str
    latents: str = "image"
    timestep_scale: float = 1.0
    embedding_output: int | None = None

    def modulation_of(self, stack: Stack) -> Modulation:
        """Where the blocks of a stack get their modulation."""
        return stack.modulation or self.modulation

    def blocks(self, transformer: torch.nn.Module) -> dict[str, tuple[Stack, torch.nn.Module]]:
        """Full module path → (its stack, the block), in order of execution."""
        return {
            f"{stack.path}.{i}": (stack, block)
            for stack in self.stacks
            for i, block in enumerate(cast("Iterable[torch.nn.Module]", transformer.get_submodule(stack.path)))
        }

    def block_paths(self, transformer: torch.nn.Module) -> list[str]:
        """Full module paths of all blocks, in order of execution."""
        return list(self.blocks(transformer))

    def grid(self, transformer: torch.nn.Module, latent_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Token grid (F, H, W) of latents of shape (B, C, H, W) or (B, C, F, H, W); packed ones don't tell."""
        if self.latents == "packed":
            raise UnsupportedModelError(f"Family {self.family} packs its latents; their shape does not tell the grid.")
        patch = transformer.config[self.patch_size]  # type: ignore[index]
        frames, height, width = (1, patch, patch) if isinstance(patch, int) else patch
        depth = latent_shape[-3] // frames if self.latents == "video" else 1
        return depth, latent_shape[-2] // height, latent_shape[-1] // width

    def grid_of_call(self, transformer: torch.nn.Module, kwargs: Mapping[str, Any]) -> tuple[int, int, int]:
        """Token grid (F, H, W) of a call with these arguments."""
        if self.latents != "packed":
            return self.grid(transformer, tuple(kwargs[self.hidden_argument].shape))
        places = kwargs["img_ids"]
        height, width = (int(places[..., axis].max()) + 1 for axis in (1, 2))
        return 1, height, width


_SIX = ("shift_msa", "scale_msa", "gate_msa", "shift_mlp", "scale_mlp", "gate_mlp")

FAMILIES: tuple[Layout, ...] = (
    Layout(
        family="sd3",
        transformer="diffusers.models.transformers.transformer_sd3.SD3Transformer2DModel",
        stacks=(Stack("transformer_blocks", hidden_output=1),),
        hidden_argument="hidden_states",
        embedding_module="time_text_embed",
        modulation=Modulation("per_block", "norm1.linear", _SIX, beyond=("shift_msa2", "scale_msa2", "gate_msa2")),
        guidance=Guidance(batched=True, rows=("uncond", "cond"), linear=True),
        patch_size="patch_size",
    ),
    Layout(
        family="wan",
        transformer="diffusers.models.transformers.transformer_wan.WanTransformer3DModel",
        stacks=(Stack("blocks", hidden_output=None),),
        hidden_argument="hidden_states",
        embedding_module="condition_embedder",
        embedding_output=0,
        modulation=Modulation(
            "shared_table", "condition_embedder.time_proj", _SIX, argument="temb", table="scale_shift_table"
        ),
        # Two calls a step, which WanPipeline puts into cache_context("cond") and cache_context("uncond").
        guidance=Guidance(batched=False, rows=("cond", "uncond"), linear=True),
        patch_size="patch_size",
        latents="video",
    ),
    Layout(
        family="flux2",
        transformer="diffusers.models.transformers.transformer_flux2.Flux2Transformer2DModel",
        stacks=(
            Stack("transformer_blocks", hidden_output=1),
            Stack(
                "single_transformer_blocks",
                hidden_output=None,
                image="last",
                # One shift, scale and gate, of attention and feed-forward together (and of the text tokens as well).
                modulation=Modulation("shared", "single_stream_modulation", _SIX[:3], argument="temb_mod"),
            ),
        ),
        hidden_argument="hidden_states",
        embedding_module="time_guidance_embed",
        modulation=Modulation("shared", "double_stream_modulation_img", _SIX, argument="temb_mod_img"),
        # Flux2Pipeline: one call, the guidance scale goes in as an embedding. Flux2KleinPipeline: two calls.
        guidance=Guidance(batched=False, rows=("cond", "uncond"), linear=True),
        patch_size="patch_size",
        latents="packed",
        timestep_scale=0.001,
    ),
)

_MODELS = "diffusers.models.transformers."
_NO_SHIFT = "its blocks have scale and gate but no shift"
_TOKEN = "the timestep enters as a token of the sequence or is added to the tokens, not through AdaLN"

#: Transformers that are known not to fit, and why: the analyses assume shift, scale and gate of the image stream in every
#: block, computed from one embedding of the timestep.
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        f"{_MODELS}transformer_mochi.MochiTransformer3DModel": _NO_SHIFT,
        f"{_MODELS}lumina_nextdit2d.LuminaNextDiT2DModel": _NO_SHIFT,
        f"{_MODELS}transformer_lumina2.Lumina2Transformer2DModel": _NO_SHIFT
        + ", and its image tokens start at another place in every row",
        f"{_MODELS}transformer_z_image.ZImageTransformer2DModel": _NO_SHIFT,
        f"{_MODELS}hunyuan_transformer_2d.HunyuanDiT2DModel": "its blocks have a shift but neither scale nor gate",
        f"{_MODELS}transformer_omnigen.OmniGenTransformer2DModel": _TOKEN,
        f"{_MODELS}transformer_cosmos3.Cosmos3OmniTransformer": _TOKEN,
        f"{_MODELS}stable_audio_transformer.StableAudioDiTModel": _TOKEN,
        f"{_MODELS}dit_transformer_2d.DiTTransformer2DModel": "every block embeds the timestep on its own, so there is no "
        "one embedding to record or to exchange",
        f"{_MODELS}transformer_ernie_image.ErnieImageTransformer2DModel": "its states are ordered (token, batch, channel)",
        f"{_MODELS}latte_transformer_3d.LatteTransformer3DModel": "its blocks alternate between (batch × frames) and "
        "(batch × places) as their first axis",
    }
)


def layout_for(model: Any, *, token_timesteps: bool = False) -> Layout:
    """Find the row of a pipeline or of a transformer.

    Parameters
    ----------
    model : pipeline or transformer
    token_timesteps : bool
        True if the caller can handle a pipeline that gives every token a timestep of its own.

    Raises
    ------
    UnsupportedModelError
        If it is not a diffusion transformer, or one that has no row.
    """
    transformer = getattr(model, "transformer", None)
    if transformer is None:
        transformer = model
        if hasattr(model, "unet"):
            raise UnsupportedModelError(
                f"{type(model).__name__} denoises with a UNet, not with a transformer; the workbench needs a diffusion "
                f"transformer of one of these families: {known_families()}."
            )
    name = f"{type(transformer).__module__}.{type(transformer).__name__}"
    if name in REFUSED:
        raise UnsupportedModelError(
            f"{type(transformer).__name__} is known and not supported: {REFUSED[name]}. Known families: {known_families()}."
        )
    _one_transformer(model, token_timesteps)
    for row in FAMILIES:
        if row.transformer == name:
            return row
    raise UnsupportedModelError(
        f"{name} is not a diffusion transformer that the workbench has a layout for. Known families: "
        f"{known_families()}. `workbench models` lists them."
    )


def _one_transformer(pipe: Any, token_timesteps: bool) -> None:
    """Refuse pipelines that have a row for their class, but not for what they do with it."""
    if getattr(pipe, "transformer_2", None) is not None:
        raise UnsupportedModelError(
            f"{type(pipe).__name__} denoises with two transformers, one after the other (transformer and transformer_2); "
            "a recording holds the states of one. Such pipelines are not supported yet."
        )
    if not token_timesteps and getattr(getattr(pipe, "config", None), "expand_timesteps", False):
        raise UnsupportedModelError(
            f"{type(pipe).__name__} gives every token a timestep of its own (expand_timesteps). Such pipelines can be "
            "recorded, and STAS acts on them (`workbench.apply`); all else here needs one timestep a call."
        )


def known_families() -> str:
    """Family names with their transformer classes, for messages."""
    return ", ".join(f"{row.family} ({row.transformer.rsplit('.', 1)[-1]})" for row in FAMILIES)
