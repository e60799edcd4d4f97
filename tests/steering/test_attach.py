"""The bundled guidance against a plain one, and what it must leave alone. Random weights with planted channels."""

import contextlib
import copy
import warnings
from typing import Any

import pytest
import torch

from tests.steering.helpers import assert_untouched, make_spec, plain_detail_guidance, state_of
from workbench.models.layout import Stack
from workbench.models.tokens import Tokens
from workbench.steering.attach import apply
from workbench.steering.partial import EditHook
from workbench.steering.spec import DetailGuidanceSpec

PROMPTS = ["red apple", "dog face"]
STEPS = 4
# Two orders of the same float32 sums (batched against single rows, sigma in float64 against float32) over four steps.
# Measured here: 2e-7 to 1e-6 of the largest latent.
TOLERANCE = 1e-5


def noise(rows: int = 2, height: int = 16, width: int = 12) -> torch.Tensor:
    return torch.randn(rows, 4, height, width, generator=torch.Generator().manual_seed(7))


def generate(pipe: Any, *, scale: float = 4.0, latents: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
    latents = noise() if latents is None else latents
    prompts = PROMPTS[: len(latents)]
    return pipe(
        prompts,
        num_inference_steps=STEPS,
        guidance_scale=scale,
        latents=latents,
        output_type="latent",
        height=latents.shape[-2],
        width=latents.shape[-1],
        **kwargs,
    ).images


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("scale", [4.0, 1.0], ids=["cfg+dg", "dg"])
@pytest.mark.parametrize("size", [(16, 16), (8, 14)], ids=["square", "non-square"])
@pytest.mark.parametrize("layer", [0, 2, 4])
def test_equals_plain_implementation(pipe, scale, size, layer) -> None:
    spec = make_spec(pipe, layer=f"transformer_blocks.{layer}")
    latents = noise(2, *size)
    expected = plain_detail_guidance(pipe, spec, PROMPTS, latents, steps=STEPS, guidance_scale=scale)
    unsteered = generate(pipe, scale=scale, latents=latents)
    with apply(spec, pipe) as attached:
        steered = generate(pipe, scale=scale, latents=latents)
    assert attached.calls == attached.degraded_passes == STEPS
    assert relative(steered, expected) < TOLERANCE
    assert relative(unsteered, expected) > 100 * TOLERANCE, "the guidance must do something, or this shows nothing"


@pytest.mark.parametrize(("unit", "low", "high"), [("sigma", 0.6, 0.95), ("step_fraction", 0.0, 0.25)])
def test_window_is_obeyed(pipe, unit, low, high) -> None:
    spec = make_spec(pipe, window={"unit": unit, "low": low, "high": high})

    def is_open(sigma: float, step: int) -> bool:
        return low <= (sigma if unit == "sigma" else step / STEPS) <= high

    expected = plain_detail_guidance(pipe, spec, PROMPTS, noise(), steps=STEPS, guidance_scale=4.0, is_open=is_open)
    with apply(spec, pipe) as attached:
        steered = generate(pipe)
    sigmas = pipe.scheduler.sigmas.tolist()
    assert attached.degraded_passes == sum(is_open(sigmas[i], i) for i in range(STEPS)) == 2
    assert relative(steered, expected) < TOLERANCE


def test_guidance_scale_is_taken_from_each_call(pipe, spec) -> None:
    scales = (2.0, 7.5, 1.0)
    expected = {
        scale: plain_detail_guidance(pipe, spec, PROMPTS, noise(), steps=STEPS, guidance_scale=scale)
        for scale in scales
    }
    with apply(spec, pipe):
        for scale in scales:
            assert relative(generate(pipe, scale=scale), expected[scale]) < TOLERANCE


@pytest.mark.parametrize("scale", [4.0, 1.0])
@pytest.mark.parametrize(
    "changes",
    [{"weight": 0.0}, {"window": {"unit": "sigma", "low": 0.0, "high": 0.0}}],
    ids=["weight 0", "outside the window"],
)
def test_idle_is_bit_identical_and_free(pipe, scale, changes) -> None:
    plain = generate(pipe, scale=scale)
    with apply(make_spec(pipe, **changes), pipe) as attached:
        idle = generate(pipe, scale=scale)
    assert torch.equal(idle, plain)
    assert (attached.calls, attached.degraded_passes) == (STEPS, 0)


def test_detached_is_as_before(pipe, spec) -> None:
    before, plain = state_of(pipe), generate(pipe)
    with apply(spec, pipe):
        assert not torch.equal(generate(pipe), plain)
    assert_untouched(pipe, before)
    assert torch.equal(generate(pipe), plain)


def test_detached_after_an_exception_in_the_middle(pipe, spec) -> None:
    before, plain = state_of(pipe), generate(pipe)

    def stop(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if step == 1:
            raise KeyboardInterrupt
        return kwargs

    with pytest.raises(KeyboardInterrupt), apply(spec, pipe):
        generate(pipe, callback_on_step_end=stop)
    assert_untouched(pipe, before)
    assert torch.equal(generate(pipe), plain)


def test_exception_inside_the_degraded_pass_leaves_no_mask(pipe, spec) -> None:
    plain, calls = generate(pipe), []

    def fail_second(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")

    handle = pipe.transformer.transformer_blocks[3].register_forward_pre_hook(fail_second)
    with apply(make_spec(pipe, window={"unit": "step_fraction", "low": 0.0, "high": 0.1}), pipe) as attached:
        with pytest.raises(RuntimeError, match="out of memory"):
            generate(pipe)
        handle.remove()
        calls.append(1)
        assert attached.degraded_passes == 0
        steered = generate(pipe)
        assert attached.degraded_passes == 1
    assert not torch.equal(steered, plain)
    assert torch.equal(generate(pipe), plain)


def test_exactly_the_named_entries_are_masked(pipe, spec) -> None:
    """norm1 and norm1_context are the first to see what enters a block, behind every hook on it."""
    image: dict[int, list[torch.Tensor]] = {i: [] for i in range(5)}
    text: dict[int, list[torch.Tensor]] = {i: [] for i in range(5)}
    for i, block in enumerate(pipe.transformer.transformer_blocks):
        block.norm1.register_forward_pre_hook(lambda m, a, i=i: image[i].append(a[0].clone()))
        block.norm1_context.register_forward_pre_hook(lambda m, a, i=i: text[i].append(a[0].clone()))
    with apply(spec, pipe):
        generate(pipe)
    cond = slice(len(PROMPTS), 2 * len(PROMPTS))
    assert [len(image[i]) for i in range(5)] == [STEPS, STEPS, 2 * STEPS, 2 * STEPS, 2 * STEPS], "0 and 1 are shared"
    clean, degraded = image[2][0][cond], image[2][1]
    named, others = list(spec.channels), [c for c in range(clean.shape[-1]) if c not in spec.channels]
    assert torch.equal(degraded[..., named], torch.zeros_like(degraded[..., named]))
    assert clean[..., named].abs().min() > 1, "the planted channels are massive before the mask"
    assert torch.equal(degraded[..., others], clean[..., others])
    assert torch.equal(text[2][1], text[2][0][cond])
    assert relative(image[3][1], image[3][0][cond]) > 1e-3, "blocks after m see the change"


def test_wrapped_by_nnsight_before(pipe, spec) -> None:
    from nnsight import NNsight

    with apply(spec, pipe):
        expected = generate(pipe)
    wrapped = NNsight(pipe.transformer)
    before = state_of(pipe)
    with apply(spec, pipe):
        steered = generate(pipe)
    assert torch.equal(steered, expected)
    assert_untouched(pipe, before)
    seen: list[torch.Tensor] = []
    cond, _, pooled, _ = pipe.encode_prompt(prompt=PROMPTS)
    with torch.no_grad(), wrapped.trace(noise(), cond, pooled, torch.full((2,), 500.0)):
        seen.append(wrapped.transformer_blocks[0].output[1])
    assert [state.shape for state in seen] == [(2, 48, 64)], "tracing still works afterwards"


def test_wrapped_by_something_else_meanwhile_leaves_that_in_place(pipe, spec) -> None:
    plain, seen = generate(pipe), []
    attached = contextlib.ExitStack()
    attached.enter_context(apply(spec, pipe))
    forward = pipe.transformer.forward
    pipe.transformer.forward = lambda *a, **k: (seen.append(1), forward(*a, **k))[1]
    with pytest.warns(UserWarning, match="was wrapped by something else"):
        attached.close()
    assert torch.equal(generate(pipe), plain)
    assert len(seen) == STEPS


def test_other_hooks_of_the_user_survive(pipe, spec) -> None:
    from diffusers.hooks.hooks import HookRegistry, ModelHook

    class Count(ModelHook):
        n = 0

        def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            self.n += 1
            return args, kwargs

    early, late = Count(), Count()
    registry = HookRegistry.check_if_exists_or_initialize(pipe.transformer)
    registry.register_hook(early, "early")
    plain = generate(pipe)
    with apply(spec, pipe):
        registry.register_hook(late, "late")
        generate(pipe)
    assert early.n == 3 * STEPS, "once in the plain run, and for both passes in the steered one"
    assert list(registry.hooks) == ["early", "late"]
    assert torch.equal(generate(pipe), plain)
    assert (early.n, late.n) == (4 * STEPS, 2 * STEPS)


def test_around_hook_of_the_user_survives(pipe, spec) -> None:
    """diffusers' own removal would silence a hook with a `new_forward` that was registered after ours."""
    from diffusers.hooks.hooks import HookRegistry, ModelHook

    class Around(ModelHook):
        n = 0

        def new_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
            self.n += 1
            return self.fn_ref.original_forward(*args, **kwargs)

    around, plain = Around(), generate(pipe)
    with apply(spec, pipe):
        HookRegistry.check_if_exists_or_initialize(pipe.transformer).register_hook(around, "around")
        assert not torch.equal(generate(pipe), plain)
    assert torch.equal(generate(pipe), plain)
    assert around.n == 2 * STEPS


def test_output_objects_and_positional_arguments(pipe, spec) -> None:
    """`return_dict=True` and positional arguments mean the same as the way the pipeline calls."""
    cond, uncond, pooled, pooled_uncond = pipe.encode_prompt(prompt=PROMPTS)
    text, vector = torch.cat([uncond, cond]), torch.cat([pooled_uncond, pooled])
    x, seen = torch.cat([noise()] * 2), []

    def call(_pipe: Any, step: int, t: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Inside a call of the pipeline, as only such calls are steered."""
        t = t.expand(4)
        keyword = pipe.transformer(
            hidden_states=x, encoder_hidden_states=text, pooled_projections=vector, timestep=t, return_dict=False
        )
        seen.append((keyword, pipe.transformer(x, text, vector, t)))
        return {}

    with apply(spec, pipe):
        generate(pipe, callback_on_step_end=call)
    for keyword, positional in seen:
        assert isinstance(keyword, tuple)
        assert torch.equal(positional.sample, keyword[0])


def test_mask_finds_the_state_by_position_too(pipe, spec) -> None:
    """With gradient checkpointing the model calls its blocks by position."""
    stack = Stack("transformer_blocks", hidden_output=1)
    hook = EditHook(pipe.transformer.transformer_blocks[2], stack, spec.channels, "zero")
    hook.tokens = Tokens(stack, (1, 1, 3))
    state, text, temb = torch.ones(2, 3, 64), torch.ones(2, 5, 64), torch.ones(2, 64)
    assert hook.pre_forward(None, state, text, temb) == ((state, text, temb), {}), "idle"
    hook.active = True
    (masked, *rest), kwargs = hook.pre_forward(None, state, text, temb)
    assert rest == [text, temb]
    assert kwargs == {}
    assert masked.sum() == 2 * 3 * 62
    assert state.sum() == 2 * 3 * 64, "the caller's tensor is left alone"


def test_same_weights_in_bfloat16_are_accepted(pipe, spec: DetailGuidanceSpec) -> None:
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    embeddings = dict(zip(names, (e.bfloat16() for e in pipe.encode_prompt(prompt=PROMPTS)), strict=True))
    half = copy.deepcopy(pipe).to(torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with apply(spec, half) as attached:
            out = half(
                num_inference_steps=STEPS,
                guidance_scale=4.0,
                latents=noise().bfloat16(),
                height=16,
                width=12,
                output_type="latent",
                **embeddings,
            ).images
    assert attached.degraded_passes == STEPS
    assert out.dtype == torch.bfloat16
    # 8 bits of mantissa over four steps with gains of 4 and 1.5: the same picture, not the same numbers.
    with apply(spec, pipe):
        assert relative(out.float(), generate(pipe)) < 0.1
