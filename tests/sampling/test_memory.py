"""A size that a stranger's spec recommends is asked about before anything is allocated."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.steering.stas_helpers import stas_spec
from tests.tiny_wan import SIZE, WIDTH, encode_wan, tiny_wan
from workbench.errors import SpecError
from workbench.sampling import memory
from workbench.sampling.sampler import sample
from workbench.sampling.steer import stas_trial

HUGE = {"height": 32768, "width": 32768, "num_frames": 8193}


@pytest.fixture(scope="module")
def wan() -> Any:
    return tiny_wan()


def recommending(wan: Any, size: dict[str, int]) -> Any:
    spec = stas_spec(wan)
    return spec.replace(recommended={**spec.recommended.model_dump(), "guidance_scale": 3.0, "steps": 1, **size})


def test_what_is_needed_is_counted_in_tokens_and_bytes(wan: Any) -> None:
    least = memory.needed(wan, **SIZE, batch_size=2)
    assert least.tokens == 2 * 2 * 3, "the grid of tests/tiny_wan.py"
    assert least.bytes == 4 * 3 * 2 * 5 * 32 * 48, "the decoded videos are more than the states of so few channels"
    wide = memory.needed(tiny_wan(attention_head_dim=600), **SIZE, batch_size=2)
    assert wide.bytes == 4 * 2 * 12 * 1200 * 4 > least.bytes
    assert WIDTH < 1200


def test_a_size_beyond_memory_is_refused_before_anything_is_made(
    wan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    spec = recommending(wan, HUGE)
    called = []
    monkeypatch.setattr(type(wan), "__call__", lambda *args, **kwargs: called.append(args))
    said = r"recommends 32768 × 32768 px and 8193 frames: 8,594,128,896 tokens .* at least .* GiB for 1 at once, .*--height"
    with pytest.raises(SpecError, match=said):
        sample(wan, prompts="a", spec=spec, encode=encode_wan, progress=False)
    with pytest.raises(SpecError, match=said):
        stas_trial(spec, wan, prompts=["a"], out=tmp_path / "run", encode=encode_wan, progress=False)
    assert not called
    assert not (tmp_path / "run").exists()


def test_what_fits_and_what_the_user_gave_is_let_through(wan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.refuse_too_large(wan, dict(SIZE), dict.fromkeys(SIZE), 4)
    memory.refuse_too_large(wan, dict(HUGE), dict(HUGE), 1)
    memory.refuse_too_large(wan, {**HUGE, "height": None}, dict.fromkeys(HUGE), 1)
    monkeypatch.setattr(memory, "memory_of", lambda device: None)
    memory.refuse_too_large(wan, dict(HUGE), dict.fromkeys(HUGE), 1)


def test_a_machine_says_what_memory_it_has() -> None:
    there = memory.memory_of(torch.device("cpu"))
    assert there is None or there > 1 << 28
    assert memory.memory_of(torch.device("meta")) is None
