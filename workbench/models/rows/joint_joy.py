"""JoyImage-Edit and JoyImage-Edit-Plus."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.models.layout import Guidance, Latents, Layout, Modulation, Pipeline, Stack, Timestep
from workbench.models.rows.terms import SIX

_MODELS = "diffusers.models.transformers."

_NORMED = "the channels of every latent of the result are brought to the conditional prediction's norm"
_TABLE = Modulation(
    "shared_table", "condition_embedder.time_proj", SIX, argument="temb", table="img_mod.modulate_table"
)

JOY_EDIT = Layout(
    family="joyimage-edit",
    title="JoyImage-Edit",
    transformer=f"{_MODELS}transformer_joyimage.JoyImageEditTransformer3DModel",
    stacks=(Stack("double_blocks", hidden_output=0),),
    latents=Latents("BICFHW", patch=("patch_size.0", "patch_size.1", "patch_size.2")),
    timestep=Timestep(embedding="condition_embedder", output=0),
    modulation=_TABLE,
    pipelines=(
        Pipeline("JoyImageEditPipeline", Guidance(batched=False, rows=("cond", "uncond"), linear=False, why=_NORMED)),
    ),
    width=("hidden_size",),
)

JOY_EDIT_PLUS = Layout(
    family="joyimage-edit-plus",
    title="JoyImage-Edit-Plus",
    transformer=f"{_MODELS}transformer_joyimage_edit_plus.JoyImageEditPlusTransformer3DModel",
    stacks=(Stack("double_blocks", hidden_output=0),),
    latents=Latents("BNCfhw", grid="shapes", source="shape_list", patch=("1", "2", "2")),
    timestep=Timestep(embedding="condition_embedder", output=0),
    modulation=_TABLE,
    pipelines=(
        Pipeline(
            "JoyImageEditPlusPipeline", Guidance(batched=True, rows=("uncond", "cond"), linear=False, why=_NORMED)
        ),
    ),
    width=("hidden_size",),
    row_lists=("shape_list",),
)

ROWS: tuple[Layout, ...] = (JOY_EDIT, JOY_EDIT_PLUS)

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType({})
