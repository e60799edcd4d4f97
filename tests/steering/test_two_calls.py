"""Pipelines in which each branch is a call of its own: a tiny random WanPipeline against a plain loop."""

from typing import Any

import pytest
import torch

from tests.steering.helpers import fields
from tests.tiny_wan import SIZE, encode_wan, tiny_wan
from workbench.errors import SpecError, UnsupportedModelError
from workbench.models import fingerprint
from workbench.steering.attach import apply
from workbench.steering.spec import DetailGuidanceSpec

PROMPTS = ["red apple", "dog face"]
STEPS = 3
TOLERANCE = 1e-5  # as in test_attach: the order of float32 sums, over three steps


@pytest.fixture
def pipe() -> Any:
    return tiny_wan()


def make_spec(pipe: Any, **changes: Any) -> DetailGuidanceSpec:
    chosen = {"layer": "blocks.1", "channels": [3, 11], "weight": 20.0} | changes
    return DetailGuidanceSpec.create(**fields(model={"family": "wan", **fingerprint(pipe)}, **chosen))


def noise() -> torch.Tensor:
    return torch.randn(2, 16, 2, 4, 6, generator=torch.Generator().manual_seed(7))


def generate(pipe: Any, *, scale: float = 4.0, **kwargs: Any) -> torch.Tensor:
    return pipe(
        **encode_wan(PROMPTS), num_inference_steps=STEPS, guidance_scale=scale, latents=noise(), output_type="latent",
        **SIZE, **kwargs,
    ).frames  # fmt: skip


@torch.no_grad()
def plain(pipe: Any, spec: DetailGuidanceSpec, scale: float) -> torch.Tensor:
    """D = D_u + s (D_c − D_u) + w (D_c − D_m): three calls a step in an own loop, torch's own pre-hook, Euler's step."""
    embeddings, transformer = encode_wan(PROMPTS), pipe.transformer
    keep = torch.ones(24)
    keep[list(spec.channels)] = 0.0
    pipe.scheduler.set_timesteps(STEPS)
    sigmas, x = pipe.scheduler.sigmas.tolist(), noise()
    for i, t in enumerate(pipe.scheduler.timesteps):

        def predict(text: torch.Tensor, x: torch.Tensor = x, t: torch.Tensor = t) -> torch.Tensor:
            return transformer(x, t.expand(2), text, return_dict=False)[0]

        d_c = predict(embeddings["prompt_embeds"])
        d = d_c
        if scale > 1:
            d_u = predict(embeddings["negative_prompt_embeds"])
            d = d_u + scale * (d_c - d_u)
        block = transformer.get_submodule(spec.layer)
        handle = block.register_forward_pre_hook(lambda module, args: (args[0] * keep, *args[1:]))
        d = d + spec.weight * (d_c - predict(embeddings["prompt_embeds"]))
        handle.remove()
        x = x + (sigmas[i + 1] - sigmas[i]) * d
    return x


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("scale", [4.0, 1.0], ids=["cfg+dg", "dg"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_equals_plain_implementation(pipe, scale, layer) -> None:
    spec = make_spec(pipe, layer=f"blocks.{layer}")
    expected, unsteered = plain(pipe, spec, scale), generate(pipe, scale=scale)
    with apply(spec, pipe) as attached:
        steered = generate(pipe, scale=scale)
    assert (attached.calls, attached.degraded_passes) == (STEPS * (2 if scale > 1 else 1), STEPS)
    assert relative(steered, expected) < TOLERANCE
    assert relative(unsteered, expected) > 100 * TOLERANCE, "the guidance must do something, or this shows nothing"
    assert torch.equal(generate(pipe, scale=scale), unsteered), "and nothing is left of it"


def test_only_the_conditional_call_is_degraded(pipe) -> None:
    """The edited state reaches the block in one of three calls a step, and it has the conditional text."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    pipe.transformer.blocks[1].norm1.register_forward_pre_hook(lambda m, a: seen.append(a[0].clone()))
    with apply(make_spec(pipe), pipe):
        generate(pipe)
    zeroed = [bool((state[..., [3, 11]] == 0).all()) for state in seen]
    assert zeroed == [False, True, False] * STEPS, "cond, degraded, uncond"
    for cond, degraded, uncond in zip(seen[::3], seen[1::3], seen[2::3], strict=True):
        others = [c for c in range(24) if c not in (3, 11)]
        assert torch.equal(degraded[..., others], cond[..., others])
        assert not torch.equal(degraded[..., others], uncond[..., others])


@pytest.mark.parametrize("scale", [4.0, 1.0])
@pytest.mark.parametrize(
    "changes",
    [{"weight": 0.0}, {"action": "scale", "retention": 1.0}, {"window": {"unit": "sigma", "low": 0.0, "high": 0.0}}],
    ids=["weight 0", "retention 1", "outside the window"],
)
def test_idle_is_bit_identical_and_free(pipe, scale, changes) -> None:
    expected = generate(pipe, scale=scale)
    with apply(make_spec(pipe, **changes), pipe) as attached:
        assert torch.equal(generate(pipe, scale=scale), expected)
    assert attached.degraded_passes == 0


def test_window_with_the_pipelines_own_kind_of_scheduler(pipe) -> None:
    """Wan is published with UniPC on a flow's noise levels; its class name doesn't say so, its config does."""
    from diffusers import UniPCMultistepScheduler

    pipe.scheduler = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)
    with apply(make_spec(pipe, window={"unit": "sigma", "low": 0.5, "high": 0.9}), pipe) as attached:
        generate(pipe)
    expected = sum(0.5 <= sigma <= 0.9 for sigma in pipe.scheduler.sigmas.tolist()[:STEPS])
    assert 0 < attached.degraded_passes == expected < STEPS


def test_call_without_a_name_is_refused(pipe, monkeypatch) -> None:
    import contextlib

    spec = make_spec(pipe)
    monkeypatch.setattr(type(pipe.transformer), "cache_context", lambda *a, **k: contextlib.nullcontext())
    with pytest.raises(UnsupportedModelError, match="context None, which is none of .*cond"), apply(spec, pipe):
        generate(pipe)
    assert "forward" not in vars(pipe.transformer)


def test_two_experts_are_refused_by_name(pipe) -> None:
    spec = make_spec(pipe)
    pipe.register_modules(transformer_2=tiny_wan(seed=1).transformer)
    with pytest.raises(UnsupportedModelError, match="transformer_2"), apply(spec, pipe):
        pass


def test_channel_outside_the_model_is_refused(pipe) -> None:
    with pytest.raises(SpecError, match="no channel 24: its hidden state has 24 channels"), apply(
        make_spec(pipe, channels=[3, 24]), pipe
    ):  # fmt: skip
        pass


def test_ctrl_c_between_the_two_calls(pipe) -> None:
    expected, calls = generate(pipe), []

    def stop(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 3:  # the uncond call of the first step; the degraded pass was the second
            raise KeyboardInterrupt

    handle = pipe.transformer.blocks[2].register_forward_pre_hook(stop)
    with apply(make_spec(pipe), pipe):
        with pytest.raises(KeyboardInterrupt):
            generate(pipe)
        handle.remove()
        again = generate(pipe)
    with apply(make_spec(pipe), pipe):
        assert torch.equal(generate(pipe), again), "the interrupted call left no trace"
    assert torch.equal(generate(pipe), expected)
