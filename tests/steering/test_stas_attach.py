"""STAS on a stock WanPipeline: exactly the allowed entries change, and nothing is left of it. Random weights."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.steering.helpers import assert_untouched, state_of
from tests.steering.stas_helpers import PROMPTS, STEPS, Seen, by_the_letter, generate, stas_spec
from tests.tiny_wan import SIZE, encode_ti2v, tiny_ti2v, tiny_wan
from workbench.errors import SpecError, UnsupportedModelError
from workbench.steering.attach import apply

LATE = {"unit": "step_fraction", "low": 0.3, "high": 1.0}
FIRST_STEP = {"unit": "step_fraction", "low": 0.0, "high": 0.0}
NOTHING = {"alpha_first": None, "alpha_boundary": None}


@pytest.fixture
def pipe() -> Any:
    return tiny_wan()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def allowed(spec: Any, frames: int, run: int, width: int) -> np.ndarray:
    """(N, C) of bool: first-frame and boundary tokens x channels, by counting."""
    mask = np.zeros((frames * run, 24), dtype=bool)
    for n in range(frames * run):
        frame, place = divmod(n, run)
        role = "first" if frame == 0 else "boundary" if place < width or place >= run - width else "interior"
        mask[n, list(spec.channels)] = spec.alphas[role] is not None
    return mask


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("branches", [["cond", "uncond"], ["cond"], ["uncond"]], ids=["both", "cond", "uncond"])
def test_exactly_the_allowed_entries_change(pipe, layer, branches) -> None:
    """At every visit of every block: behind the hooks against what the block returned, and against the method by hand."""
    plain = Seen(pipe)
    generate(pipe)
    plain_visits = [[state.clone() for state in states] for states in plain.left]
    for states in (*plain.own, *plain.left):
        states.clear()
    spec = stas_spec(pipe, layers=[f"blocks.{layer}"], branches=branches)
    with apply(spec, pipe) as attached:
        generate(pipe)
    due = [branch in branches for branch in ("cond", "uncond")] * STEPS
    assert (attached.calls, attached.steered_calls) == (2 * STEPS, sum(due))
    mask = allowed(spec, 2, 6, 2)
    first = due.index(True)
    for block in range(3):
        for call, (own, left) in enumerate(zip(plain.own[block], plain.left[block], strict=True)):
            if block != layer or not due[call]:
                assert torch.equal(own, left)
                continue
            for row in range(len(PROMPTS)):
                expected = by_the_letter(spec, own[row].numpy(), (2, 2, 3), 2)
                assert np.array_equal(left[row].numpy(), expected)
                assert np.array_equal(left[row].numpy() != own[row].numpy(), mask)
        # Up to the first steered state, the bits of a run without a spec: so only those entries changed.
        for call in range(first + (block <= layer)):
            assert torch.equal(plain.own[block][call], plain_visits[block][call])
        assert len(plain.own[block]) == 2 * STEPS, "no pass of its own"


def test_several_blocks_and_actions(pipe) -> None:
    for changes in (
        {"layers": ["blocks.2", "blocks.0"], "reference": "joint"},
        {"action": "zero", "alpha_first": 0.0, "alpha_boundary": None},
        {"action": "scale", "alpha_interior": 3.0},
    ):
        pipe, spec = tiny_wan(), None
        seen, spec = Seen(pipe), stas_spec(pipe, **changes)
        with apply(spec, pipe):
            generate(pipe)
        for block in range(3):
            for own, left in zip(seen.own[block], seen.left[block], strict=True):
                acts = f"blocks.{block}" in spec.layers
                expected = by_the_letter(spec, own[0].numpy(), (2, 2, 3), 2) if acts else own[0].numpy()
                assert np.array_equal(left[0].numpy(), expected)


@pytest.mark.parametrize("scale", [4.0, 1.0], ids=["cfg", "no cfg"])
@pytest.mark.parametrize(
    "changes",
    [
        NOTHING,
        {"window": {"unit": "sigma", "low": 0.0, "high": 0.0}},
        {"window": {"unit": "step_fraction", "low": 0.99, "high": 1.0}},
        {"action": "scale", "alpha_first": 1.0, "alpha_boundary": 1.0},
    ],
    ids=["no alpha", "empty window", "no step in the window", "times 1"],
)
def test_nothing_is_bit_identical_to_no_spec(pipe, scale, changes) -> None:
    expected = generate(pipe, scale=scale)
    with apply(stas_spec(pipe, **changes), pipe) as attached:
        assert torch.equal(generate(pipe, scale=scale), expected)
    assert (attached.calls, attached.steered_calls) == (STEPS * (2 if scale > 1 else 1), 0)
    assert attached.report()["changed_norm"].tolist() == [0.0, 0.0]


def test_without_cfg_the_only_call_is_cond(pipe) -> None:
    expected = generate(pipe, scale=1.0)
    with apply(stas_spec(pipe, branches=["uncond"]), pipe) as attached:
        assert torch.equal(generate(pipe, scale=1.0), expected)
    assert attached.steered_calls == 0
    with apply(stas_spec(pipe, branches=["cond"]), pipe) as attached:
        assert not torch.equal(generate(pipe, scale=1.0), expected)
    assert attached.steered_calls == STEPS


@pytest.mark.parametrize(("window", "steps"), [(FIRST_STEP, {0}), (LATE, {1, 2})], ids=["first step", "late"])
def test_window_is_obeyed(pipe, window, steps) -> None:
    seen = Seen(pipe)
    with apply(stas_spec(pipe, window=window), pipe) as attached:
        generate(pipe)
    changed = [not torch.equal(own, left) for own, left in zip(seen.own[1], seen.left[1], strict=True)]
    assert changed == [call // 2 in steps for call in range(2 * STEPS)]
    assert attached.steered_calls == 2 * len(steps)


def test_window_in_sigma_is_the_schedulers(pipe) -> None:
    with apply(stas_spec(pipe, window={"unit": "sigma", "low": 0.8, "high": 1.0}), pipe) as attached:
        generate(pipe)
    inside = sum(sigma >= 0.8 for sigma in pipe.scheduler.sigmas.tolist()[:STEPS])
    assert attached.steered_calls == 2 * inside
    assert 0 < inside < STEPS


def test_detached_is_as_before(pipe) -> None:
    plain = generate(pipe)  # in which the pipeline itself makes a registry for its contexts
    before = state_of(pipe)
    with apply(stas_spec(pipe), pipe):
        assert not torch.equal(generate(pipe), plain)
    assert_untouched(pipe, before)
    assert torch.equal(generate(pipe), plain)


def test_detached_after_an_exception_in_the_middle(pipe) -> None:
    plain, calls = generate(pipe), []
    before = state_of(pipe)

    def stop(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    handle = pipe.transformer.blocks[2].register_forward_pre_hook(stop)
    with apply(stas_spec(pipe), pipe):
        with pytest.raises(KeyboardInterrupt):
            generate(pipe)
        handle.remove()
        again = generate(pipe)
    with apply(stas_spec(pipe), pipe):
        assert torch.equal(generate(pipe), again), "the interrupted call left no trace"
    assert_untouched(pipe, before)
    assert torch.equal(generate(pipe), plain)


def test_a_sample_does_not_depend_on_its_neighbours(pipe) -> None:
    """The neighbour's values are ten times as large: a maximum over the batch would be another one."""
    spec = stas_spec(pipe)
    noise = torch.randn(2, 16, 2, 4, 6, generator=torch.Generator().manual_seed(3))
    louder = torch.stack([noise[0], noise[1] * 10])
    with apply(spec, pipe):
        alone = generate(pipe, PROMPTS[:1], latents=noise[:1])
        batched, beside = generate(pipe, latents=noise), generate(pipe, latents=louder)
    assert torch.equal(batched[0], beside[0])
    assert relative(batched[:1], alone) < 1e-5, "kernels round otherwise at another batch size"


@pytest.mark.parametrize(
    ("width", "tokens"), [({"unit": "rows", "value": 1}, 4), ({"unit": "fraction", "value": 0.25}, 3)]
)
def test_the_grid_is_the_calls(pipe, width, tokens) -> None:
    """One spec at two resolutions: (3, 3, 4) tokens after (2, 2, 3), where a fraction is 2 tokens and a row does not fit."""
    seen, spec = Seen(pipe), stas_spec(pipe, boundary_width=width)
    size = {"height": 48, "width": 64, "num_frames": 9}
    with apply(spec, pipe):
        if width["unit"] == "rows":
            with pytest.raises(SpecError, match=r"2 x 2 x 3 tokens .* boundary_width 1 rows: .*valid is .*from 1 to 2"):
                generate(pipe)
        else:
            generate(pipe)
            assert np.array_equal((seen.own[1][0] != seen.left[1][0])[0].numpy(), allowed(spec, 2, 6, 2))
        for states in (*seen.own, *seen.left):
            states.clear()
        generate(pipe, size=size)
    assert np.array_equal((seen.own[1][0] != seen.left[1][0])[0].numpy(), allowed(spec, 3, 12, tokens))


def test_width_that_does_not_fit_is_told_at_the_first_step(pipe) -> None:
    steps: list[int] = []
    spec = stas_spec(pipe, window=LATE, boundary_width={"unit": "tokens", "value": 3})
    with pytest.raises(SpecError, match="from 1 to 2"), apply(spec, pipe):
        generate(pipe, callback_on_step_end=lambda p, step, t, k: steps.append(step) or k)
    assert steps == []
    with pytest.raises(SpecError, match="two latent frames"), apply(stas_spec(pipe), pipe):
        generate(pipe, size={**SIZE, "num_frames": 1})


@pytest.mark.filterwarnings("ignore:applying a spec")
def test_bfloat16(pipe) -> None:
    """What is put in is a value of the state in bfloat16, times alpha in bfloat16."""
    half = tiny_wan(dtype=torch.bfloat16)
    seen, spec = Seen(half), stas_spec(half, alpha_first=1.0, alpha_boundary=1.1)
    noise = torch.randn(1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(3))
    texts = {name: value[:1].bfloat16() for name, value in _embeddings().items()}
    with apply(spec, half) as attached:
        out = generate(half, PROMPTS[:1], latents=noise, **texts)
    assert attached.steered_calls == 2 * STEPS
    own, left = seen.own[1][0][0], seen.left[1][0][0]
    assert own.dtype == left.dtype == torch.bfloat16
    assert np.array_equal((own != left).numpy() <= allowed(spec, 2, 6, 2), np.ones((12, 24), dtype=bool))
    for channel in spec.channels:
        largest = own[:, channel].abs().max()
        assert set(left[:6, channel].abs().tolist()) == {float(largest)}
        assert set(left[[6, 7, 10, 11], channel].abs().tolist()) == {float(largest * torch.tensor(1.1).bfloat16())}
    assert torch.isfinite(out.float()).all()


def _embeddings() -> dict[str, torch.Tensor]:
    from tests.tiny_wan import encode_wan

    return encode_wan(PROMPTS[:1])


@pytest.mark.parametrize("image", [False, True], ids=["text to video", "image to video"])
def test_a_timestep_a_token(image) -> None:
    """Wan2.2-TI2V: with a given first frame, its tokens have timestep 0; the step is that of the others."""
    pipe = tiny_ti2v(image=image)
    texts = encode_ti2v(PROMPTS[:1])
    if not image:
        texts.pop("image")
    spec = stas_spec(pipe, window=FIRST_STEP)
    seen = Seen(pipe)
    generator = torch.Generator().manual_seed(1)
    with apply(spec, pipe) as attached:
        generate(pipe, PROMPTS[:1], latents=None, generator=generator, **texts)
    assert attached.steered_calls == 2
    for call, (own, left) in enumerate(zip(seen.own[1], seen.left[1], strict=True)):
        expected = by_the_letter(spec, own[0].numpy(), (2, 2, 3), 2) if call < 2 else own[0].numpy()
        assert np.array_equal(left[0].numpy(), expected)


def test_report_tells_how_much_was_changed(pipe) -> None:
    seen = Seen(pipe)
    with apply(stas_spec(pipe, window=FIRST_STEP), pipe) as attached:
        generate(pipe)
        found = attached.report()["changed_norm"]
        assert attached.report()["changed_norm"].tolist() == [0.0, 0.0], "told once"
    visits = zip(seen.own[1][:2], seen.left[1][:2], strict=True)
    by_hand = torch.stack([(left - own).square().sum(-1).mean(-1).sqrt() for own, left in visits]).mean(0)
    assert found == pytest.approx(by_hand.numpy(), rel=1e-5)


def test_calls_of_other_videos_before_are_no_part_of_a_report(pipe) -> None:
    spec = stas_spec(pipe, window=FIRST_STEP)
    with apply(spec, pipe) as attached:
        generate(pipe, PROMPTS[:1])
        alone = attached.report()["changed_norm"]
        generate(pipe, PROMPTS)
        generate(pipe, PROMPTS[:1])
        assert attached.report()["changed_norm"].tolist() == alone.tolist()


def test_inside_nnsight_and_with_hooks_of_the_user(pipe) -> None:
    from nnsight import NNsight

    with apply(stas_spec(pipe), pipe):
        expected = generate(pipe)
    NNsight(pipe.transformer)
    with apply(stas_spec(pipe), pipe):
        assert torch.equal(generate(pipe), expected)


@pytest.mark.filterwarnings("ignore:.*was wrapped by something else")
def test_skipped_block_is_refused(pipe) -> None:
    """Something that answers in the place of a steered block, as caches do."""
    with apply(stas_spec(pipe), pipe):
        pipe.transformer.blocks[1].forward = lambda hidden_states, *a, **k: hidden_states
        with pytest.raises(UnsupportedModelError, match=r"blocks\.1 ran 0 times in one call"):
            generate(pipe)
