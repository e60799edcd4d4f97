"""Disruption changes what it says, where it says, and nothing else; taken off, the pipeline has its bits back."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch

from workbench.errors import RecordingError, SpecError, UnsupportedModelError
from workbench.steering.disruption import EVERYWHERE, Disruption

LAYER = "transformer_blocks.2"
MASSIVE = (5, 41)  # what tests.planted plants
ORDINARY = tuple(c for c in range(64) if c not in MASSIVE)


def run(
    pipe: Any, *, prompts: tuple[str, ...] = ("red apple", "dog"), scale: float = 3.0, steps: int = 3
) -> np.ndarray:
    generators = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    out = pipe(
        list(prompts), generator=generators, num_inference_steps=steps, guidance_scale=scale, output_type="latent"
    )
    return np.asarray(out.images)


def states(pipe: Any, what: Disruption, **options: Any) -> tuple[list[torch.Tensor], Any]:
    """States that the block is really given (a hook put on last sees what the others made of it), and the attachment."""
    seen: list[torch.Tensor] = []
    with what.apply(pipe) as attached:
        block = pipe.transformer.get_submodule(what.layer)
        handle = block.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["hidden_states"].clone()), with_kwargs=True
        )
        run(pipe, **options)
        handle.remove()
    return seen, attached


def first_plain_state(pipe: Any) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = pipe.transformer.get_submodule(LAYER).register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["hidden_states"].clone()), with_kwargs=True
    )
    run(pipe)
    handle.remove()
    return seen[0]


def removed(pipe: Any) -> float:
    with Disruption(LAYER, "massive", MASSIVE).apply(pipe) as attached:
        run(pipe)
    return float(attached.norm)


def hooks_of(pipe: Any) -> int:
    return sum(len(module._forward_pre_hooks) for module in pipe.transformer.modules())


def test_zeroes_the_channels_of_every_token_and_row_and_changes_the_result(pipe):
    plain, before = run(pipe), first_plain_state(pipe)
    what = Disruption(LAYER, "massive", MASSIVE)
    seen, attached = states(pipe, what)
    assert len(seen) == attached.calls == attached.open_calls == len(attached.visits) == 3
    for state in seen:
        assert state.shape[0] == 4  # 2 samples × 2 branches
        assert not state[..., list(MASSIVE)].any()
    assert torch.equal(seen[0][..., list(ORDINARY)], before[..., list(ORDINARY)])
    with what.apply(pipe):
        assert not np.array_equal(run(pipe), plain)


def test_taken_off_the_pipeline_has_its_bits_back_also_after_an_error(pipe):
    plain, hooks = run(pipe), hooks_of(pipe)
    with Disruption(LAYER, "massive", MASSIVE).apply(pipe):
        run(pipe)
    with pytest.raises(KeyError), Disruption(LAYER, "massive", MASSIVE).apply(pipe):
        raise KeyError
    assert hooks_of(pipe) == hooks
    assert np.array_equal(run(pipe), plain)


def test_a_window_without_a_step_is_bit_identical_to_nothing(pipe):
    plain = run(pipe)
    with Disruption(LAYER, "massive", MASSIVE, window=(0.0, 0.001)).apply(pipe) as attached:
        assert np.array_equal(run(pipe), plain)
    assert (attached.calls, attached.open_calls, attached.visits) == (3, 0, [])
    assert np.isnan(attached.norm)
    assert np.isnan(attached.report()["removed_norm"]).all()


def test_the_windows_of_a_trajectory_share_no_step_and_leave_none_out(pipe):
    thirds = [(2 / 3, 1.0), (1 / 3, 2 / 3), (0.0, 1 / 3)]
    sigmas = []
    for window in thirds:
        with Disruption(LAYER, "massive", MASSIVE, window=window).apply(pipe) as attached:
            run(pipe, steps=8)
        assert all(window[0] < visit.sigma <= window[1] + 1e-6 for visit in attached.visits)
        sigmas += [visit.sigma for visit in attached.visits]
    assert len(sigmas) == len(set(sigmas)) == 8


def test_the_norm_it_reports_is_the_one_that_was_removed_sample_by_sample(pipe):
    before = first_plain_state(pipe)
    with Disruption(LAYER, "massive", MASSIVE).apply(pipe) as attached:
        run(pipe)
        reported = attached.report()["removed_norm"]
    by_row = before[..., list(MASSIVE)].norm(dim=-1).square().mean(dim=-1).sqrt()  # uncond 0, uncond 1, cond 0, cond 1
    assert attached.visits[0].norm == pytest.approx([(by_row[i] + by_row[i + 2]).item() / 2 for i in (0, 1)])
    assert reported == pytest.approx(np.mean([visit.norm for visit in attached.visits], axis=0))
    assert attached.norm == pytest.approx(reported.mean())


def test_each_report_is_of_the_call_before_it(pipe):
    with Disruption(LAYER, "massive", MASSIVE).apply(pipe) as attached:
        run(pipe)
        two = attached.report()["removed_norm"]
        run(pipe, prompts=("dog",))
        one = attached.report()["removed_norm"]
    assert (two.shape, one.shape) == ((2,), (1,))


@pytest.mark.parametrize("kind", ["noise", "shift"])
def test_noise_has_the_massive_channels_norm_on_every_token_and_goes_into_the_others(pipe, kind):
    before = first_plain_state(pipe)
    seen, attached = states(pipe, Disruption(LAYER, kind, MASSIVE, into=ORDINARY, seed=3))
    added = seen[0] - before
    assert torch.equal(seen[0][..., list(MASSIVE)], before[..., list(MASSIVE)])
    torch.testing.assert_close(added.norm(dim=-1), before[..., list(MASSIVE)].norm(dim=-1), rtol=1e-4, atol=1e-4)
    direction = added / added.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(direction[0], direction[3], rtol=1e-3, atol=1e-4)  # the same in every row
    assert torch.allclose(direction[0, 0], direction[0, 1], atol=1e-3) is (kind == "shift")
    other, _ = states(pipe, Disruption(LAYER, kind, MASSIVE, into=ORDINARY, seed=4))
    assert not torch.equal(other[0], seen[0])
    assert attached.norm == pytest.approx(removed(pipe), rel=0.3)


NORMS = (("cond", ((0.0, 2.0), (1.0, 4.0))), ("uncond", ((0.0, 1.0), (1.0, 1.0))))


@pytest.mark.parametrize("kind", ["noise", "matched_random"])
def test_a_planned_norm_is_met_branch_by_branch_whatever_the_state_holds(pipe, kind):
    before = first_plain_state(pipe)
    named = (MASSIVE, ORDINARY) if kind == "noise" else (ORDINARY, ())
    seen, attached = states(pipe, Disruption(LAYER, kind, named[0], into=named[1], norms=NORMS))
    change = (seen[0] - before).norm(dim=-1)  # at sigma 1: rows uncond 0, uncond 1, cond 0, cond 1
    held = before[..., list(ORDINARY)].norm(dim=-1)
    wanted = torch.tensor([1.0, 1.0, 4.0, 4.0])[:, None].expand_as(change)
    wanted = wanted if kind == "noise" else torch.minimum(wanted, held)
    torch.testing.assert_close(change, wanted, rtol=1e-3, atol=1e-3)
    assert attached.visits[0].norm == pytest.approx(
        wanted.square().mean(dim=-1).sqrt().reshape(2, 2).mean(dim=0).tolist(), rel=1e-3
    )
    assert Disruption(LAYER, kind, named[0], into=named[1], norms=NORMS).norm_at("cond", 0.5) == 3.0
    with pytest.raises(SpecError, match="norms"):
        Disruption(LAYER, "random", ORDINARY, norms=NORMS)


@pytest.mark.parametrize(("branches", "rows"), [("cond", [2, 3]), ("uncond", [0, 1])])
def test_a_single_branch_can_be_disrupted(pipe, branches, rows):
    before = first_plain_state(pipe)
    seen, _ = states(pipe, Disruption(LAYER, "massive", MASSIVE, branches=branches))
    others = [row for row in range(4) if row not in rows]
    assert not seen[0][rows][..., list(MASSIVE)].any()
    assert torch.equal(seen[0][others], before[others])


def test_without_guidance_there_is_only_the_conditional_branch(pipe):
    with Disruption(LAYER, "massive", MASSIVE, branches="cond").apply(pipe) as attached:
        run(pipe, scale=1.0)
    assert attached.report()["removed_norm"].shape == (2,)
    with (
        pytest.raises(UnsupportedModelError, match="guidance above 1"),
        Disruption(LAYER, "massive", MASSIVE, branches="uncond").apply(pipe),
    ):
        run(pipe, scale=1.0)


def test_a_block_that_something_skips_is_no_disruption(pipe):
    blocks = pipe.transformer.transformer_blocks

    def skipping() -> None:
        with Disruption(LAYER, "massive", MASSIVE).apply(pipe):
            pipe.transformer.transformer_blocks = torch.nn.ModuleList(list(blocks)[:2])  # as a cache would
            run(pipe)

    with pytest.raises(UnsupportedModelError, match="ran 0 times in 3 calls"):
        skipping()
    pipe.transformer.transformer_blocks = blocks


def test_a_disrupted_pipeline_is_not_recorded(pipe, tmp_path):
    from workbench.record import record

    with (
        Disruption(LAYER, "massive", MASSIVE).apply(pipe),
        pytest.raises(RecordingError, match="pass for the plain model"),
    ):
        record(pipe, prompts=["dog"], seeds=[0], steps=2, out=tmp_path / "x.zarr", progress=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer": "transformer_blocks.9"}, r"no block 'transformer_blocks.9'.*transformer_blocks.4 \(5 of them"),
        ({"channels": ()}, "no channel is left"),
        ({"channels": (5, 64)}, "channels 0 to 63"),
        ({"kind": "loud"}, "choose one of massive, random"),
        ({"window": (0.5, 0.5)}, "is empty"),
        ({"window": (0.2, 1.5)}, "outside 0 to 1"),
        ({"into": (1, 2)}, "noise goes into"),
        ({"branches": "both"}, "choose all, cond or uncond"),
    ],
)
def test_what_cannot_be_meant_is_refused(pipe, change, said):
    given: dict[str, Any] = {"layer": LAYER, "kind": "massive", "channels": MASSIVE} | change
    with pytest.raises(SpecError, match=said), Disruption(**given).apply(pipe):
        pass


def test_text_tokens_before_the_image_tokens_are_left_alone():
    from tests.tiny_flux2 import SIZE, encode_flux2, tiny_flux2

    pipe, layer, seen = tiny_flux2(), "single_transformer_blocks.0", []
    given = {"num_inference_steps": 1, "output_type": "latent"}

    def keep(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(kwargs["hidden_states"].clone())

    for what in (None, Disruption(layer, "massive", (3,)), Disruption(layer, "noise", (3,), into=(5, 7))):
        with what.apply(pipe) if what else contextlib.nullcontext() as attached:
            handle = pipe.transformer.get_submodule(layer).register_forward_pre_hook(keep, with_kwargs=True)
            pipe(**encode_flux2(["dog"]), **SIZE, **given, generator=torch.Generator().manual_seed(0))
            handle.remove()
    plain, zeroed, noisy = seen
    text = plain.shape[1] - 6  # a grid of 2 x 3 image tokens
    assert text > 0
    for state in (zeroed, noisy):
        assert torch.equal(state[:, :text], plain[:, :text])
    assert plain[:, :, 3].all()
    assert not zeroed[:, text:, 3].any()
    assert (noisy[:, text:, [5, 7]] != plain[:, text:, [5, 7]]).all()
    assert attached.norm == pytest.approx(plain[:, text:, 3].square().mean().sqrt().item())


def test_identity_says_which_definition_of_the_method_it_is(monkeypatch):
    what = Disruption(LAYER, "massive", MASSIVE)
    before = what.identity()
    monkeypatch.setattr("workbench.steering.disruption.METHOD_VERSION", before["method_version"] + 1)
    assert what.identity() != before


def test_identity_tells_every_field():
    import json

    what = Disruption(LAYER, "noise", MASSIVE, into=(1, 2), window=(0.0, 0.5), branches="cond", seed=7)
    assert json.loads(json.dumps(what.identity())) == what.identity()
    assert {**what.identity(), "seed": 8} == Disruption(
        LAYER, "noise", MASSIVE, (1, 2), (0.0, 0.5), "cond", 8
    ).identity()
    assert EVERYWHERE == (0.0, 1.0)


def test_other_families_say_their_width_too():
    """Not every transformer has `inner_dim`; Wan's has not."""
    from tests.steering.stas_helpers import generate
    from tests.tiny_wan import tiny_wan

    pipe = tiny_wan()
    plain = generate(pipe)
    with Disruption("blocks.1", "massive", (3, 11)).apply(pipe) as attached:
        changed = generate(pipe)
    assert attached.calls == len(attached.visits) == 6
    assert not torch.equal(changed, plain)
    assert torch.equal(generate(pipe), plain)
    with pytest.raises(SpecError, match="channels 0 to 23"), Disruption("blocks.1", "massive", (24,)).apply(pipe):
        pass
