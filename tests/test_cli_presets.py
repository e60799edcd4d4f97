"""`workbench models PRESET`: facts and needs, without a download."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.cli import main
from workbench.cli import show as of_terminal
from workbench.models.presets import PRESETS


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run ``workbench models …`` on a wide terminal, where nothing may be fetched; what it printed."""
    from diffusers import DiffusionPipeline

    def fetched(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a preset's page fetched something")

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", fetched)
    monkeypatch.setattr(of_terminal._console, "_width", 300)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["workbench", "models", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None)
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_page(said: Any, name: str) -> None:
    page = said(name)
    preset = PRESETS[name]
    assert preset.hub in page
    assert all(fact.says in page and fact.source in page for fact in preset.facts)


def test_the_page_says_tokens_facts_weights_and_bytes(said: Any) -> None:
    page = said("sd3-medium")
    assert "4096 (F, H, W = 1 × 64 × 64)" in page
    assert "810" in page
    assert "2nd: a second-hand summary" in page
    assert "4.17 GB" in page  # 2.085 · 10⁹ numbers of two bytes
    full = next(line for line in page.splitlines() if "full" in line and "28, all" in line)
    assert (
        "17.9 GB" in full
    )  # 2 branches × 28 steps × 25 layers × 4096 tokens × 1536 channels × 2 bytes, and the statistics


def test_the_page_says_what_the_workbench_refuses(said: Any) -> None:
    assert "two transformers" in said("wan2.2-a14b")
    assert "timestep of its own" in said("wan2.2-ti2v-5b")
    assert "limit" not in said("wan2.1-1.3b")


def test_the_page_ends_with_the_command_for_the_model_itself(said: Any) -> None:
    assert "record wan2.1-1.3b --prompts … --steps 50 --guidance 5 --height 480 --width 832 --frames 81" in said(
        "wan2.1-1.3b"
    )
    assert "--guidance 1 " in said("flux1-dev")
    assert "class label" in said("dit-xl-2")


def test_the_table_of_families_names_the_presets(said: Any) -> None:
    page = said()
    assert all(name in page for name in PRESETS)
