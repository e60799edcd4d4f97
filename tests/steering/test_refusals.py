"""Each input that can't be steered gets one clear error, and the pipeline stays as it was."""

from typing import Any

import pytest
import torch

from tests.steering.helpers import make_spec
from workbench.errors import SpecError, UnsupportedModelError
from workbench.models.layout import Timestep
from workbench.steering.attach import apply
from workbench.steering.schedule import place


def refused(pipe: Any, spec: Any, error: type[Exception], *words: str, **kwargs: Any) -> None:
    before = {name: dict(vars(module)) for name, module in pipe.transformer.named_modules()}
    with pytest.raises(error) as caught, apply(spec, pipe, **kwargs):
        raise AssertionError("was not refused")
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"
    for name, module in pipe.transformer.named_modules():
        assert vars(module).keys() == before[name].keys()


def test_another_architecture(pipe) -> None:
    from tests.planted import planted_pipeline

    other = make_spec(planted_pipeline("constant", layers=4))
    refused(pipe, other, SpecError, "another model", other.model.config_hash, "record this one", strict=True)
    refused(pipe, other, SpecError, "another model", strict=False)


def test_other_weights(pipe) -> None:
    from tests.planted import planted_pipeline

    twin = planted_pipeline("constant", seed=1)
    other = make_spec(twin)
    mine = make_spec(pipe).model.weight_hash
    refused(pipe, other, SpecError, "other weights", other.model.weight_hash, mine, "strict=False")
    with pytest.warns(UserWarning, match="derived from other weights"), apply(other, pipe, strict=False):
        pass


def test_weights_without_a_hash(pipe, spec) -> None:
    nameless = spec.replace(model=spec.model.model_dump() | {"weight_hash": None})
    refused(pipe, nameless, SpecError, "other weights")


def test_unknown_layer(pipe) -> None:
    refused(
        pipe,
        make_spec(pipe, layer="transformer_blocks.5"),
        SpecError,
        "no block 'transformer_blocks.5'",
        "transformer_blocks.0 … transformer_blocks.4 (5 of them)",
    )
    refused(pipe, make_spec(pipe, layer="norm_out"), SpecError, "no block 'norm_out'")


def test_unknown_channel(pipe) -> None:
    refused(pipe, make_spec(pipe, channels=[5, 64, 70]), SpecError, "no channel 64, 70", "64 channels, 0 to 63")


def test_not_a_spec(pipe) -> None:
    refused(pipe, {"method": "detail_guidance"}, SpecError, "a dict is not a spec", "load_spec")


def test_altered_in_memory(pipe, spec) -> None:
    refused(pipe, spec.model_copy(update={"weight": 3.0}), SpecError, "content_hash", "replace")


def test_nested(pipe, spec) -> None:
    with apply(spec, pipe):
        refused_inside = pytest.raises(SpecError, match="applied to this model already")
        with refused_inside, apply(spec, pipe):
            raise AssertionError("was not refused")
        assert pipe.transformer._diffusers_hook.hooks, "the outer one is still there"


def test_not_a_pipeline(pipe, spec) -> None:
    with (
        pytest.raises(UnsupportedModelError, match="SD3Transformer2DModel is no pipeline"),
        apply(spec, pipe.transformer),
    ):
        pass
    with pytest.raises(UnsupportedModelError, match="`workbench models` lists"), apply(spec, torch.nn.Linear(2, 2)):
        pass


def test_pipeline_that_combines_otherwise(pipe, spec) -> None:
    class StableDiffusion3PAGPipeline(type(pipe)):
        """Same transformer, three branches."""

    pipe.__class__ = StableDiffusion3PAGPipeline
    refused(pipe, spec, UnsupportedModelError, "StableDiffusion3PAGPipeline", "has not been checked")


def test_combination_that_is_not_linear(pipe, spec, monkeypatch) -> None:
    import dataclasses

    from workbench.models import layout_for
    from workbench.steering import check

    row = layout_for(pipe)
    stock = row.pipelines[0]
    bent = dataclasses.replace(
        stock, guidance=dataclasses.replace(stock.guidance, linear=False, why="it is renormalised")
    )
    monkeypatch.setattr(check, "layout_for", lambda model, **_: dataclasses.replace(row, pipelines=(bent,)))
    refused(pipe, spec, UnsupportedModelError, "not linear in the conditional prediction", "renormalised")


def test_cache(pipe, spec) -> None:
    from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache

    apply_first_block_cache(pipe.transformer, FirstBlockCacheConfig(threshold=0.1))
    refused(pipe, spec, UnsupportedModelError, "a cache is enabled", "Disable it")


def test_cache_enabled_meanwhile(pipe, spec) -> None:
    from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache

    with apply(spec, pipe):
        apply_first_block_cache(pipe.transformer, FirstBlockCacheConfig(threshold=0.1))
        with pytest.raises(UnsupportedModelError, match="was enabled while a spec is applied"):
            pipe("red apple", num_inference_steps=1, output_type="latent", height=16, width=16)


def test_offloading(pipe, spec) -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module

    add_hook_to_module(pipe.transformer, ModelHook())
    refused(pipe, spec, UnsupportedModelError, "offloading is enabled")


def test_skip_layer_guidance(pipe, spec) -> None:
    with pytest.raises(UnsupportedModelError, match="skip_guidance_layers"), apply(spec, pipe):
        pipe(
            "red apple",
            num_inference_steps=4,
            guidance_scale=4.0,
            output_type="latent",
            height=16,
            width=16,
            skip_guidance_layers=[1],
            skip_layer_guidance_stop=1.0,
        )
    assert "forward" not in vars(pipe.transformer)


def test_transformer_called_without_its_pipeline(pipe, spec) -> None:
    x, text, pooled = torch.zeros(2, 4, 8, 8), torch.zeros(2, 6, 32), torch.zeros(2, 32)
    with pytest.raises(UnsupportedModelError, match="not by its pipeline"), apply(spec, pipe):
        pipe.transformer(x, text, pooled, torch.full((2,), 500.0))


def test_transformer_called_directly_after_its_pipeline(pipe, spec) -> None:
    """The pipeline keeps its guidance scale after a call; these rows would be taken for uncond | cond."""
    x, text, pooled = torch.zeros(2, 4, 8, 8), torch.zeros(2, 6, 32), torch.zeros(2, 32)
    with apply(spec, pipe):
        pipe("red apple", num_inference_steps=1, guidance_scale=4.0, output_type="latent", height=16, width=16)
        with pytest.raises(UnsupportedModelError, match="not by its pipeline"):
            pipe.transformer(x, text, pooled, torch.full((2,), 500.0))


def test_transformer_called_by_another_pipeline(pipe, spec) -> None:
    """Two pipelines can share a transformer; each has a guidance scale of its own."""
    from tests.planted import planted_pipeline

    other = planted_pipeline("constant")
    other.register_modules(transformer=pipe.transformer)
    arguments = {"num_inference_steps": 1, "guidance_scale": 4.0, "output_type": "latent", "height": 16, "width": 16}
    with apply(spec, pipe):
        pipe("red apple", **arguments)
        with pytest.raises(UnsupportedModelError, match="not by its pipeline"):
            other("red apple", **arguments)


def test_pipeline_of_a_derived_class_may_call_on(pipe, spec) -> None:
    class StableDiffusion3Pipeline(type(pipe)):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    pipe.__class__ = StableDiffusion3Pipeline
    with apply(spec, pipe) as attached:
        pipe("red apple", num_inference_steps=1, guidance_scale=4.0, output_type="latent", height=16, width=16)
    assert attached.degraded_passes == 1


def test_a_timestep_that_is_not_the_schedulers() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    with pytest.raises(UnsupportedModelError, match="timestep 17"):
        place(scheduler, torch.tensor([17.0]), Timestep())
    with pytest.raises(UnsupportedModelError, match="that is 250 of the scheduler's, which is not one"):
        place(scheduler, torch.tensor([0.75]), Timestep(scale=-0.001, offset=1.0))


@pytest.mark.parametrize("sigma", [0.6, 0.7])
def test_step_whose_sigma_is_the_bound_belongs_to_the_window(sigma) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    from workbench.steering.parts import Window

    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[0.9, sigma, 0.1])
    at = place(scheduler, scheduler.timesteps[1:2], Timestep()).in_unit("sigma")
    assert at != sigma, "float32 has neither number"
    assert Window(unit="sigma", low=0.0, high=sigma).contains(at)
    assert Window(unit="sigma", low=sigma, high=1.0).contains(at)


def test_sigma_is_the_schedulers_own() -> None:
    """With given timesteps the two tables differ, so a constant divisor would be wrong."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[0.9, 0.5, 0.1], timesteps=[900.0, 500.0, 100.0])
    second = place(scheduler, scheduler.timesteps[1:2], Timestep())
    assert (second.step, second.steps) == (1, 3)
    assert second.sigma == pytest.approx(0.75)  # 3·0.5 / (1 + 2·0.5)
    assert second.in_unit("step_fraction") == pytest.approx(1 / 3)
