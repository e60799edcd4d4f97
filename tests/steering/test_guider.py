"""The guider against the root hook, the bundled formula and plain loops; in a modular pipeline and in stock ones."""

import contextlib
import json
from typing import Any

import pytest
import torch
from diffusers import ClassifierFreeGuidance, StableDiffusion3ModularPipeline, WanModularPipeline
from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache
from diffusers.modular_pipelines.stable_diffusion_3.modular_blocks_stable_diffusion_3 import (
    StableDiffusion3T2ICoreDenoiseStep,
)
from diffusers.modular_pipelines.wan.modular_blocks_wan import WanCoreDenoiseStep

import workbench
from tests.families import joint_other, joint_qwen, video_hunyuan_15, video_other_motif
from tests.families.test_steered import WEIGHT, degraded, dg_spec, guidance_of_first_step, middle, ran
from tests.steering import test_two_calls
from tests.steering.helpers import assert_untouched, make_spec, plain_detail_guidance, state_of
from tests.steering.stas_helpers import stas_spec
from tests.tiny_wan import SIZE, encode_wan, tiny_wan
from workbench.errors import SpecError, UnsupportedModelError, WorkbenchError
from workbench.models import layout_for, refuse_altered
from workbench.steering.detail_guidance import combine
from workbench.steering.guider import DetailGuidance

PROMPTS, STEPS, SCALE = ["red apple", "dog face"], 3, 4.0
TOLERANCE = 1e-5  # as in test_attach: the order of float32 sums, over some steps


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def noise() -> torch.Tensor:
    return torch.randn(2, 4, 16, 12, generator=torch.Generator().manual_seed(7))


def modular(pipe: Any, guider: Any) -> torch.Tensor:
    """The denoising part of the modular pipeline with a stock one's components; no negative prompt where s is 1."""
    other = StableDiffusion3ModularPipeline(blocks=StableDiffusion3T2ICoreDenoiseStep())
    other.update_components(transformer=pipe.transformer, scheduler=pipe.scheduler, guider=guider)
    other.set_progress_bar_config(disable=True)
    cond, uncond, pooled, pooled_uncond = pipe.encode_prompt(prompt=PROMPTS, prompt_2=None, prompt_3=None)
    embeddings = {"prompt_embeds": cond, "pooled_prompt_embeds": pooled}
    if guider.num_conditions > 1:
        embeddings |= {"negative_prompt_embeds": uncond, "negative_pooled_prompt_embeds": pooled_uncond}
    size = {"height": 16, "width": 12}
    return other(**embeddings, **size, num_inference_steps=STEPS, latents=noise(), output="latents")


def stock(pipe: Any, scale: float) -> torch.Tensor:
    return pipe(
        PROMPTS, num_inference_steps=STEPS, guidance_scale=scale, latents=noise(), output_type="latent", height=16, width=12
    ).images  # fmt: skip


SPECS = {
    "constant": {},
    "first block": {"layer": "transformer_blocks.0"},
    "window": {"window": {"unit": "sigma", "low": 0.6, "high": 0.95}},
    "share of steps": {"window": {"unit": "step_fraction", "low": 0.0, "high": 0.4}},
    "schedules": {
        "weight": {"knots": [[0.3, 0.0], [1.0, 3.0]]},
        "action": "scale",
        "retention": {"knots": [[0.2, 0.9], [1.0, 0.1]]},
    },
    "mean": {"action": "mean"},
}


@pytest.mark.parametrize("scale", [SCALE, 1.0], ids=["cfg+dg", "dg"])
@pytest.mark.parametrize("changes", SPECS.values(), ids=SPECS)
def test_modular_equals_root_hook(pipe, scale, changes) -> None:
    spec = make_spec(pipe, **changes)
    with workbench.apply(spec, pipe) as attached:
        expected = stock(pipe, scale)
    assert attached.degraded_passes
    plain = modular(pipe, ClassifierFreeGuidance(guidance_scale=scale))
    steered = modular(pipe, DetailGuidance.from_spec(spec, guidance_scale=scale))
    assert relative(steered, expected) < TOLERANCE
    assert relative(plain, expected) > 100 * TOLERANCE, "the guidance must do something, or this shows nothing"


@pytest.mark.parametrize("scale", [SCALE, 1.0], ids=["cfg+dg", "dg"])
def test_modular_video_equals_root_hook(scale) -> None:
    """Wan, whose modular pipeline hands the guider its inputs in another way."""
    pipe = tiny_wan()
    spec = test_two_calls.make_spec(pipe, weight={"knots": [[0.3, 5.0], [1.0, 20.0]]})

    def denoised(guider: Any) -> torch.Tensor:
        other = WanModularPipeline(blocks=WanCoreDenoiseStep())
        other.update_components(transformer=pipe.transformer, scheduler=pipe.scheduler, guider=guider)
        other.set_progress_bar_config(disable=True)
        given = encode_wan(PROMPTS)
        return other(**given, **SIZE, num_inference_steps=STEPS, latents=test_two_calls.noise(), output="latents")

    with workbench.apply(spec, pipe):
        expected = test_two_calls.generate(pipe, scale=scale)
    plain = denoised(ClassifierFreeGuidance(guidance_scale=scale))
    steered = denoised(DetailGuidance.from_spec(spec, guidance_scale=scale))
    assert relative(steered, expected) < TOLERANCE
    assert relative(plain, expected) > 100 * TOLERANCE


@pytest.mark.parametrize("scale", [SCALE, 1.0], ids=["cfg+dg", "dg"])
def test_modular_equals_plain_implementation(pipe, spec, scale) -> None:
    expected = plain_detail_guidance(pipe, spec, PROMPTS, noise(), steps=STEPS, guidance_scale=scale)
    assert relative(modular(pipe, DetailGuidance.from_spec(spec, guidance_scale=scale)), expected) < TOLERANCE


def test_the_formula_is_the_bundled_one(spec) -> None:
    c, u, d = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1)).double()
    guider = DetailGuidance.from_spec(spec, guidance_scale=SCALE)
    guider.set_state(0, STEPS, torch.tensor(1000.0))
    torch.testing.assert_close(guider.forward(c, u, d).pred, combine(c, u, d, SCALE, spec.weight))
    other = DetailGuidance.from_spec(spec, guidance_scale=SCALE - 1, use_original_formulation=True)
    other.set_state(0, STEPS, torch.tensor(1000.0))
    torch.testing.assert_close(other.forward(c, u, d).pred, combine(c, u, d, SCALE, spec.weight))


@pytest.mark.parametrize("scale", [SCALE, 1.0])
@pytest.mark.parametrize(
    "changes",
    [
        {"weight": 0.0},
        {"action": "scale", "retention": 1.0},
        {"window": {"unit": "sigma", "low": 0.0, "high": 0.0}},
    ],
    ids=["weight 0", "retention 1", "outside the window"],
)
def test_idle_is_plain_guidance_bit_for_bit_and_free(pipe, scale, changes) -> None:
    plain, calls = modular(pipe, ClassifierFreeGuidance(guidance_scale=scale)), []
    pipe.transformer.register_forward_pre_hook(lambda module, args: calls.append(1))
    assert torch.equal(modular(pipe, DetailGuidance.from_spec(make_spec(pipe, **changes), guidance_scale=scale)), plain)
    assert len(calls) == STEPS * (2 if scale > 1 else 1)


def test_disabled_is_the_conditional_pass(pipe, spec) -> None:
    plain = modular(pipe, ClassifierFreeGuidance(guidance_scale=SCALE, enabled=False))
    assert torch.equal(modular(pipe, DetailGuidance.from_spec(spec, enabled=False)), plain)


def test_another_guider_afterwards_gets_the_same_bits_and_detached_is_as_before(pipe, spec) -> None:
    plain, before = modular(pipe, ClassifierFreeGuidance(guidance_scale=SCALE)), state_of(pipe)
    guider = DetailGuidance.from_spec(spec)
    assert not torch.equal(modular(pipe, guider), plain)
    assert torch.equal(modular(pipe, ClassifierFreeGuidance(guidance_scale=SCALE)), plain)
    steered = modular(pipe, guider)
    guider.detach()
    assert_untouched(pipe, before)
    assert torch.equal(modular(pipe, ClassifierFreeGuidance(guidance_scale=SCALE)), plain)
    assert torch.equal(modular(pipe, guider), steered), "it attaches itself again"


def test_hooks_are_installed_once(pipe, spec) -> None:
    guider = DetailGuidance.from_spec(spec)
    modular(pipe, guider)
    hooks = state_of(pipe)
    modular(pipe, guider)
    assert_untouched(pipe, hooks)


def test_an_exception_in_a_pass_leaves_nothing_announced(pipe, spec) -> None:
    plain, guider = modular(pipe, ClassifierFreeGuidance(guidance_scale=SCALE)), DetailGuidance.from_spec(spec)

    def stop(module: Any, args: Any, output: Any) -> None:
        raise KeyboardInterrupt

    steered = modular(pipe, guider)
    handle = pipe.transformer.norm_out.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        modular(pipe, guider)
    handle.remove()
    assert torch.equal(modular(pipe, ClassifierFreeGuidance(guidance_scale=SCALE)), plain)
    assert torch.equal(modular(pipe, guider), steered)


def test_config_round_trip_gives_equal_bits(pipe, tmp_path) -> None:
    spec = make_spec(pipe, **SPECS["schedules"])
    guider = DetailGuidance.from_spec(spec, guidance_scale=3.7, use_original_formulation=True)
    steered = modular(pipe, guider)
    guider.detach()
    guider.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "guider_config.json").read_text())
    assert saved["_class_name"] == "DetailGuidance"
    for copy in (DetailGuidance.from_pretrained(tmp_path), DetailGuidance.from_config(guider.config), guider.new()):
        assert copy.spec == spec
        assert (copy.guidance_scale, copy.use_original_formulation) == (3.7, True)
        assert torch.equal(modular(pipe, copy), steered)
        copy.detach()
    assert guider.new(guidance_scale=2.0).guidance_scale == 2.0


def test_a_strangers_config_is_checked(spec, tmp_path) -> None:
    good = json.loads(DetailGuidance.from_spec(spec).to_json_string())

    def refused(match: str, **changes: Any) -> None:
        (tmp_path / "guider_config.json").write_text(json.dumps({**good, **changes}))
        with pytest.raises(SpecError, match=match):
            DetailGuidance.from_pretrained(tmp_path)

    refused(
        r"unknown keys: guidance_rescale, start\. Valid keys: enabled, guidance_scale", guidance_rescale=0.5, start=0.1
    )
    refused("of class 'PerturbedAttentionGuidance'", _class_name="PerturbedAttentionGuidance")
    refused("guidance_scale of the guider is '4'", guidance_scale="4")
    refused("guidance_scale of the guider is nan", guidance_scale=float("nan"))
    refused("guidance_scale of the guider is True", guidance_scale=True)
    refused("strict of the guider is 'no'; valid: true, false", strict="no")
    refused("spec of the guider is a str", spec="spec.json")
    refused("extra", spec={**good["spec"], "extra": 1})
    refused("altered", spec={**good["spec"], "weight": 9.0})
    refused("spec_version", spec={**good["spec"], "spec_version": 1})
    (tmp_path / "guider_config.json").write_text("{}")
    with pytest.raises(SpecError, match="missing keys: guidance_scale, spec"):
        DetailGuidance.from_pretrained(tmp_path)
    with pytest.raises(SpecError, match="unknown keys: scale"):
        DetailGuidance.from_spec(spec).new(scale=2.0)
    # Keys that diffusers takes for its own can't hide what is there.
    hidden = DetailGuidance.from_config({**good, "_use_default_values": ["spec", "strict"]})
    assert hidden.spec == spec


def test_the_spec_must_fit_the_model(pipe, spec) -> None:
    def refused(match: str, error: type[Exception] = SpecError, **changes: Any) -> None:
        before = state_of(pipe)
        with pytest.raises(error, match=match):
            modular(pipe, DetailGuidance.from_spec(make_spec(pipe, **changes)))
        assert_untouched(pipe, before)

    refused("no block 'transformer_blocks.99'", layer="transformer_blocks.99")
    refused("no channel 9999", channels=[5, 9999])
    other = spec.replace(model={**spec.model.model_dump(), "weight_hash": "0" * 16})
    with pytest.raises(SpecError, match="other weights"):
        modular(pipe, DetailGuidance.from_spec(other))
    expected = modular(pipe, guider := DetailGuidance.from_spec(spec))
    with pytest.raises(SpecError, match="applied to this model already"):
        modular(pipe, DetailGuidance.from_spec(spec))
    with pytest.raises(SpecError, match="detach"), workbench.apply(spec, pipe):
        pass
    guider.detach()
    with pytest.warns(UserWarning, match="other weights"):
        assert torch.equal(modular(pipe, DetailGuidance.from_spec(other, strict=False)), expected)


def test_what_it_needs_is_asked_for(spec) -> None:
    with pytest.raises(SpecError, match="of stas"):
        DetailGuidance(spec=stas_spec(tiny_wan()).model_dump(mode="json"), guidance_scale=4.0)
    with pytest.raises(SpecError, match="StasSpec is not a spec of Detail Guidance"):
        DetailGuidance.from_spec(stas_spec(tiny_wan()))
    with pytest.raises(SpecError, match="guidance_scale="):
        DetailGuidance.from_spec(spec.replace(recommended={"guidance_scale": None, "steps": None}))
    windowed = spec.replace(window={"unit": "sigma", "low": 0.5, "high": 1.0})
    with pytest.raises(UnsupportedModelError, match="scheduler"):
        DetailGuidance.from_spec(windowed).set_state(0, STEPS, torch.tensor(1000.0))


WITH_GUIDER = [
    family
    for module in (video_hunyuan_15, video_other_motif, joint_other)
    for family in module.FAMILIES
    if family.guided is not None and hasattr(family.build(), "guider")
]
HUNYUAN = WITH_GUIDER[0]


def with_guider(pipe: Any, guider: Any) -> Any:
    pipe.guider = guider
    return contextlib.nullcontext()


@pytest.mark.parametrize("family", WITH_GUIDER, ids=lambda family: family.name)
def test_stock_pipeline_with_a_guider_computes_the_formula(family) -> None:
    """c, u and d are from runs in which the pipeline makes that pass alone; d with PyTorch's own hook."""

    def first(how: Any) -> torch.Tensor:
        return guidance_of_first_step(family, True, how)[0]

    def guided(weight: float) -> torch.Tensor:
        def how(pipe: Any, layout: Any) -> Any:
            spec = dg_spec(pipe, layout, weight=weight)
            return with_guider(pipe, DetailGuidance.from_spec(spec, guidance_scale=SCALE))

        return first(how)

    def cond(pipe: Any, layout: Any) -> Any:
        return with_guider(pipe, ClassifierFreeGuidance(enabled=False))

    def lower(pipe: Any, layout: Any) -> Any:
        cond(pipe, layout)
        return degraded(pipe, layout, middle(layout, pipe))

    plain = first(lambda pipe, layout: with_guider(pipe, ClassifierFreeGuidance(guidance_scale=SCALE)))
    c, d = first(cond), first(lower)
    assert relative(guided(WEIGHT), plain + WEIGHT * (c - d)) < TOLERANCE
    assert relative(guided(WEIGHT), plain) > 100 * TOLERANCE
    assert torch.equal(guided(0.0), plain)


def test_stock_pipeline_over_several_steps() -> None:
    family, pipe = HUNYUAN, HUNYUAN.build()
    plain_guider, plain = pipe.guider, ran(family, pipe, True)
    before = state_of(pipe)  # a run leaves an empty registry behind
    spec = dg_spec(pipe, layout_for(pipe), window={"unit": "sigma", "low": 0.9, "high": 1.0})
    pipe.guider = DetailGuidance.from_spec(spec, guidance_scale=video_hunyuan_15.SCALE)
    steered = ran(family, pipe, True)
    assert abs(steered - plain).max() > 1e-3 * abs(plain).max()
    with pytest.raises(WorkbenchError, match="another"):
        refuse_altered(pipe, "recordings")
    pipe.guider.detach()
    pipe.guider = plain_guider
    refuse_altered(pipe, "recordings")
    assert_untouched(pipe, before)
    assert (ran(family, pipe, True) == plain).all()


@pytest.mark.parametrize("meanwhile", [True, False])
def test_a_cache_is_refused(pipe, spec, meanwhile) -> None:
    guider = DetailGuidance.from_spec(spec)
    if meanwhile:
        modular(pipe, guider)
    apply_first_block_cache(pipe.transformer, FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(UnsupportedModelError, match="a cache"):
        modular(pipe, guider)


def test_families_that_normalise_the_result_are_refused() -> None:
    family = next(family for family in joint_qwen.FAMILIES if family.name == "qwen-image")
    pipe = family.build()
    guider = DetailGuidance.from_spec(dg_spec(pipe, layout_for(pipe)))
    guider.set_state(0, 2, torch.tensor(1000.0))
    with pytest.raises(UnsupportedModelError, match="conditional prediction's norm"):
        guider.prepare_models(pipe.transformer)
