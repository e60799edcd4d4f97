"""What the rows of the joint families do not hold for is refused, with what was seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.families import joint_bria, joint_flux2, joint_joy, joint_qwen
from tests.families.base import Arguments
from tests.families.parts import picture
from workbench.errors import UnsupportedModelError
from workbench.models import layout_for
from workbench.models.call import TransformerCall

PROMPTS = ("red apple", "dog")


def first_call(pipe: Any, arguments: Arguments) -> TransformerCall:
    """The first call that the pipeline makes of its transformer."""
    calls: list[TransformerCall] = []

    def on_call(net: Any, args: Any, kwargs: Any) -> None:
        calls.append(TransformerCall.bound(layout_for(pipe), net, args, kwargs))

    handle = pipe.transformer.register_forward_pre_hook(on_call, with_kwargs=True)
    with torch.no_grad():
        pipe(**arguments, num_inference_steps=1, output_type="latent")
    handle.remove()
    return calls[0]


def test_prompts_of_different_length_in_one_batch_of_fibo2() -> None:
    """Eight tokens have six of gist, sixteen have eight: then the image stands first, as the source of the class says."""
    ones = torch.ones(1, 16)
    lengths = torch.cat([ones, ones * (torch.arange(16) < 5)]).bool()
    call = first_call(
        joint_bria.build_fibo2(),
        {
            "prompt_embeds": torch.randn(2, 2, 16, 20, generator=torch.Generator().manual_seed(1)),
            "prompt_embeds_mask": lengths,
            "height": 8,
            "width": 12,
            "guidance_scale": 1.0,
        },
    )
    with pytest.raises(UnsupportedModelError, match="encoder_attention_mask is not supported .* run prompt by prompt"):
        _ = call.grid


def test_reference_images_of_fibo2() -> None:
    call = first_call(joint_bria.build_fibo2(), {**joint_bria.encode_fibo2(PROMPTS), "height": 8, "width": 12})
    with pytest.raises(UnsupportedModelError, match="context_latents is not supported"):
        _ = call.with_(context_latents=[torch.zeros(2, 4, 4, 6)]).grid


def test_a_reference_image_of_flux2() -> None:
    arguments = {**joint_flux2.encode(PROMPTS[:1]), "height": 8, "width": 12, "image": picture(96, 64)}
    call = first_call(joint_flux2.tiny_flux2(), arguments)
    with pytest.raises(UnsupportedModelError, match="are no grid"):
        _ = call.grid


def test_a_reference_image_of_joyimage_edit() -> None:
    arguments = {**joint_joy.encode_edit(PROMPTS[:1]), "height": 1792, "width": 512, "image": picture(1792, 512)}
    call = first_call(joint_joy.build_edit(), arguments)
    with pytest.raises(UnsupportedModelError, match="2 images a row"):
        _ = call.grid


def test_a_reference_image_of_joyimage_edit_plus() -> None:
    arguments = {**joint_joy.encode_plus(PROMPTS[:1]), "height": 32, "width": 48, "images": [picture(1024, 1024)]}
    pipe = joint_joy.build_plus()
    pipe.image_processor.resize_center_crop = lambda *_: picture(32, 32)
    with pytest.raises(UnsupportedModelError, match="holds 2 images"):
        _ = first_call(pipe, arguments).grid


def test_layers_of_qwen_image() -> None:
    arguments = {**joint_qwen.encode(PROMPTS), "height": 32, "width": 48, "true_cfg_scale": 1.0}
    call = first_call(joint_qwen.build_qwen(), arguments)
    with pytest.raises(UnsupportedModelError, match="holds 2 images"):
        _ = call.with_(img_shapes=[[(1, 2, 3), (1, 2, 3)]] * 2).grid
