"""What the rows of the video families do not hold for is refused, with the reason."""

from __future__ import annotations

import pytest
import torch
from diffusers import Kandinsky6SRTransformer3DModel

from tests.families import video_ltx, video_other_kandinsky5, video_other_kandinsky6, video_other_sana
from tests.families.parts import picture, redrawn, seeded
from tests.families.test_joint_refusals import PROMPTS, first_call
from workbench.errors import UnsupportedModelError
from workbench.models import layout_for
from workbench.models.rows import REFUSED


def test_an_image_appended_to_the_latents_of_kandinsky_6() -> None:
    pipe = video_other_kandinsky6.build(token_types=2)
    arguments = {**video_other_kandinsky6.encode(PROMPTS[:1]), "height": 32, "width": 48, "num_frames": 5}
    call = first_call(pipe, {**arguments, "image": picture(32, 48)})
    with pytest.raises(UnsupportedModelError, match="appended as one more frame"):
        _ = call.grid


def test_conditions_in_front_of_the_tokens_of_ltx() -> None:
    pipe = video_ltx.build(video_ltx.LTXPipeline)
    call = first_call(pipe, {**video_ltx.encode(PROMPTS), "height": 64, "width": 96, "num_frames": 9})
    with pytest.raises(UnsupportedModelError, match="in front of the video's"):
        _ = call.with_(video_coords=torch.zeros(2, 3, 12)).grid


def test_a_controlnet_of_sana_video() -> None:
    pipe = video_other_sana.build(video_other_sana.SanaVideoPipeline)
    arguments = {**video_other_sana.encode(PROMPTS), **video_other_sana.FAMILIES[0].extra}
    call = first_call(pipe, {**arguments, "height": 32, "width": 64, "frames": 5})
    with pytest.raises(UnsupportedModelError, match="ControlNet"):
        _ = call.with_(controlnet_block_samples=(torch.zeros(4, 16, 24),)).grid


def test_squares_of_8_by_8_of_kandinsky_5() -> None:
    pipe = video_other_kandinsky5.build_image()
    pipe.transformer.register_to_config(attention_type="nabla")
    with pytest.raises(UnsupportedModelError, match="squares of 8 by 8"):
        layout_for(pipe)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_squares_of_8_by_8_of_kandinsky_6_sr() -> None:
    """It is refused because its tokens are not in raster order, and they are not."""
    net = redrawn(
        seeded(
            lambda: Kandinsky6SRTransformer3DModel(
                in_visual_dim=4,
                out_visual_dim=4,
                time_dim=16,
                model_dim=32,
                ff_dim=32,
                num_visual_blocks=1,
                axes_dims=(8, 12, 12),
                nabla_window=(3, 3, 3),
            )
        )
    ).eval()
    with pytest.raises(UnsupportedModelError, match="squares of 8 by 8"):
        layout_for(net)
    states: list[torch.Tensor] = []
    net.visual_transformer_blocks[0].register_forward_hook(lambda module, args, output: states.append(output))
    latents = torch.randn(1, 2, 8, 16, 9, generator=torch.Generator().manual_seed(0))
    changed = latents.clone()
    frame, row, column = 1, 3, 12
    changed[:, frame, row, column] += 30
    with torch.no_grad():
        for given in (latents, changed):
            net(given, torch.tensor([500.0]))
    found = int((states[1] - states[0]).norm(dim=-1)[0].argmax())
    assert found != (frame * 8 + row) * 16 + column
    assert found == frame * 128 + (column // 8) * 64 + row * 8 + column % 8


@pytest.mark.parametrize(
    ("name", "why"), [("transformer_sana_wm_refiner.SanaWMLTX2Refiner", "cache of keys"), ("MiniMaxH3", "modular")]
)
def test_classes_that_are_refused_by_name(name: str, why: str) -> None:
    (reason,) = [reason for path, reason in REFUSED.items() if name in path]
    assert why in reason
