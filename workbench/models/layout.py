"""What each diffusion-transformer family looks like: one frozen row a family.

Nothing in a row is executed; it only names modules, arguments and orders, so a row can be read, printed and compared.
`layout_for` finds the row by the exact class of the transformer, because a same-named class of another module may
order its outputs differently.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from workbench.errors import UnsupportedModelError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Stack:
    """One list of blocks that run one after another.

    Attributes
    ----------
    path : str
        Attribute path of the ``ModuleList`` in the transformer.
    hidden_output : int or None
        Which element of the block's output tuple is the image stream; None if the output is that tensor itself.
    """

    path: str
    hidden_output: int | None


@dataclass(frozen=True)
class Modulation:
    """Where the AdaLN shift, scale and gate of a block's image stream are computed.

    Attributes
    ----------
    kind : str
        ``"per_block"``: every block projects ``temb`` with a module of its own.
    module : str
        Path of that projection inside the block; its output has shape (B, len(terms) · C).
    terms : tuple of str
        Names of the chunks of the projection's output, in order.
    """

    kind: str
    module: str
    terms: tuple[str, ...]


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
    guidance : Guidance
    patch_size : str
        Config key of the spatial patch size; the latents are (B, C, H, W).
    """

    family: str
    transformer: str
    stacks: tuple[Stack, ...]
    hidden_argument: str
    embedding_module: str
    modulation: Modulation
    guidance: Guidance
    patch_size: str

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
        """Token grid (F, H, W) of latents of shape (B, C, H, W)."""
        patch = int(transformer.config[self.patch_size])  # type: ignore[index]
        return 1, latent_shape[-2] // patch, latent_shape[-1] // patch


_SIX = ("shift_msa", "scale_msa", "gate_msa", "shift_mlp", "scale_mlp", "gate_mlp")

FAMILIES: tuple[Layout, ...] = (
    Layout(
        family="sd3",
        transformer="diffusers.models.transformers.transformer_sd3.SD3Transformer2DModel",
        stacks=(Stack("transformer_blocks", hidden_output=1),),
        hidden_argument="hidden_states",
        embedding_module="time_text_embed",
        modulation=Modulation("per_block", "norm1.linear", _SIX),
        guidance=Guidance(batched=True, rows=("uncond", "cond"), linear=True),
        patch_size="patch_size",
    ),
)


def layout_for(model: Any) -> Layout:
    """Find the row of a pipeline or of a transformer.

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
    for row in FAMILIES:
        if row.transformer == name:
            return row
    raise UnsupportedModelError(
        f"{name} is not a diffusion transformer that the workbench has a layout for. Known families: "
        f"{known_families()}. `workbench models` lists them."
    )


def known_families() -> str:
    """Family names with their transformer classes, for messages."""
    return ", ".join(f"{row.family} ({row.transformer.rsplit('.', 1)[-1]})" for row in FAMILIES)
