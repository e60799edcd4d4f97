"""Where STAS must not act, and that it says why and what to do."""

import warnings
from typing import Any

import pytest
import torch

from tests.steering.helpers import make_spec
from tests.steering.stas_helpers import generate, stas_fields, stas_spec
from tests.tiny_wan import tiny_wan
from workbench.errors import SpecError, UnsupportedModelError
from workbench.models import fingerprint
from workbench.steering.attach import apply
from workbench.steering.spec import StasSpec


@pytest.fixture
def pipe() -> Any:
    return tiny_wan()


def refused(pipe: Any, spec: Any, error: type[Exception], *words: str) -> None:
    with pytest.raises(error) as caught, apply(spec, pipe):
        pass
    for word in words:
        assert word in str(caught.value)
    assert "forward" not in vars(pipe.transformer)


def test_images_have_no_frames() -> None:
    from tests.planted import planted_pipeline

    image = planted_pipeline("constant")
    layers = ["transformer_blocks.1"]
    spec = StasSpec.create(**stas_fields(model={"family": "sd3", **fingerprint(image)}, layers=layers))
    refused(
        image, spec, UnsupportedModelError, "StableDiffusion3Pipeline makes images", "WanPipeline", "Detail Guidance"
    )


def test_other_video_pipelines(pipe) -> None:
    class WanOtherPipeline(type(pipe)):
        """Opens no context around its calls."""

    spec = stas_spec(pipe)
    pipe.__class__ = WanOtherPipeline
    refused(pipe, spec, UnsupportedModelError, "WanOtherPipeline", "has not been checked")


def test_another_model(pipe) -> None:
    refused(pipe, stas_spec(tiny_wan(num_layers=4)), SpecError, "for another model")
    other = stas_spec(tiny_wan(seed=1))
    refused(pipe, other, SpecError, "other weights", "strict=False")
    with pytest.warns(UserWarning, match="other weights"), apply(other, pipe, strict=False) as attached:
        generate(pipe)
    assert attached.steered_calls == attached.calls


def test_block_and_channel_that_are_not_there(pipe) -> None:
    refused(pipe, stas_spec(pipe, layers=["blocks.1", "blocks.3"]), SpecError, "no block 'blocks.3'", "blocks.2 (3")
    refused(pipe, stas_spec(pipe, channels=[3, 24]), SpecError, "no channel 24")


def test_altered_spec(pipe) -> None:
    refused(pipe, stas_spec(pipe).model_copy(update={"alpha_first": 9.0}), SpecError, "altered")


def test_pipeline_that_is_steered_already(pipe) -> None:
    from tests.steering.test_two_calls import make_spec as guidance

    for outer in (stas_spec(pipe), guidance(pipe)):
        expected = None
        with apply(outer, pipe):
            for inner in (stas_spec(pipe), guidance(pipe)):
                with pytest.raises(SpecError, match="applied to this model already"), apply(inner, pipe):
                    pass
            expected = generate(pipe)
        with apply(outer, pipe):
            assert torch.equal(generate(pipe), expected), "the refusal changed nothing"


def test_pipeline_that_is_disrupted_already(pipe) -> None:
    from workbench.steering.disruption import Disruption

    with Disruption(layer="blocks.0", kind="massive", channels=(3,)).apply(pipe):
        with pytest.raises(SpecError, match="being disrupted already"), apply(stas_spec(pipe), pipe):
            pass
        generate(pipe)


def test_recorder_sees_that_it_is_steered(pipe) -> None:
    from workbench.models import is_steered

    with apply(stas_spec(pipe), pipe):
        assert is_steered(pipe)
    assert not is_steered(pipe)


def test_transformer_called_without_its_pipeline(pipe) -> None:
    x, text = torch.zeros(1, 16, 2, 4, 6), torch.zeros(1, 5, 20)
    with pytest.raises(UnsupportedModelError, match="not by its pipeline"), apply(stas_spec(pipe), pipe):
        pipe.transformer(x, torch.full((1,), 500.0), text)


def test_call_without_a_name(pipe, monkeypatch) -> None:
    import contextlib

    monkeypatch.setattr(type(pipe.transformer), "cache_context", lambda *a, **k: contextlib.nullcontext())
    with pytest.raises(UnsupportedModelError, match="context None, which is none of .*cond"), apply(
        stas_spec(pipe), pipe
    ):  # fmt: skip
        generate(pipe)
    assert "forward" not in vars(pipe.transformer)


def test_cache(pipe) -> None:
    from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache

    spec = stas_spec(pipe)
    with apply(spec, pipe):
        apply_first_block_cache(pipe.transformer, FirstBlockCacheConfig(threshold=0.1))
        with pytest.raises(UnsupportedModelError, match="was enabled while a spec is applied"):
            generate(pipe)
    with pytest.raises(UnsupportedModelError, match="a cache is enabled"), apply(spec, pipe):
        pass


def test_two_experts(pipe) -> None:
    spec = stas_spec(pipe)
    pipe.register_modules(transformer_2=tiny_wan(seed=1).transformer)
    refused(pipe, spec, UnsupportedModelError, "transformer_2")


def test_scheduler_without_noise_levels_is_refused_if_they_are_needed(pipe) -> None:
    from diffusers import DDIMScheduler

    windowed = stas_spec(pipe, window={"unit": "sigma", "low": 0.5, "high": 1.0})
    pipe.scheduler = DDIMScheduler()
    pipe.scheduler.set_begin_index = lambda index: None
    with pytest.raises((UnsupportedModelError, AttributeError), match="DDIMScheduler"), apply(windowed, pipe):
        generate(pipe)


def test_what_is_no_spec(pipe) -> None:
    with warnings.catch_warnings(), pytest.raises(SpecError, match="a dict is not a spec"), apply({}, pipe):
        pass


def test_detail_guidance_still_refuses_what_it_did() -> None:
    """Its table of pipelines is its own: an image-to-video pipeline combines branches in an unchecked way."""
    from tests.tiny_wan import tiny_ti2v

    pipe = tiny_ti2v(image=True)
    spec = make_spec(pipe, layer="blocks.1", channels=[3])
    with pytest.raises(UnsupportedModelError, match="expand_timesteps|WanImageToVideoPipeline"), apply(spec, pipe):
        pass
