"""The commands about videos: what they take, what they say to a mistake, and the whole path from recording to report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

from tests.planted_video import MASSIVE, TRUTHS, WAN_SIZE, planted_wan
from tests.test_cli import cli, error
from tests.tiny_wan import encode_wan, tiny_wan
from workbench.cli.options import parse_window
from workbench.cli.trials import parse_over
from workbench.cli.video import _alpha
from workbench.errors import SpecError, WorkbenchError
from workbench.models.mini.video.dit import make_text_encoder, make_tokenizer
from workbench.record import record
from workbench.sampling.over import window_of
from workbench.sampling.stas_grid import GRID
from workbench.steering.derive_stas import DEFAULT_WINDOW
from workbench.steering.spec import load_spec

PROMPTS = ["red apple", "dog face", "blue heart", "pizza", "rocket", "green car"]
SIZE = ["--height", 48, "--width", 48, "--frames", 9]
"""Of `folder`'s model: token grid (3, 3, 3)."""
STEPS = 5


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stores of videos in which the whole hierarchy is planted, of both tiers."""
    pipe = planted_wan(TRUTHS["all three levels"])
    pipe.vae = None  # nothing here looks at pictures
    call: dict[str, Any] = {"prompts": PROMPTS, "seeds": [0], "steps": 2, "batch_size": 6, **WAN_SIZE}
    made = tmp_path_factory.mktemp("cli-video")
    return {
        tier: record(pipe, out=made / f"{tier}.zarr", tier=tier, encode=encode_wan, progress=False, **call)
        for tier in ("full", "stats")
    }


@pytest.fixture
def planted(stores: dict[str, Path]) -> Path:
    return stores["full"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of a tiny video model with a text encoder, in which one channel is massive everywhere."""
    tokenizer = make_tokenizer(PROMPTS)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder = make_text_encoder(tokenizer)
    bare = tiny_wan(text_dim=encoder.config.d_model)
    with torch.no_grad():
        bare.transformer.blocks[0].attn2.to_out[0].bias[3] += 20.0
    parts = {"transformer": bare.transformer, "vae": bare.vae, "scheduler": bare.scheduler}
    out = tmp_path_factory.mktemp("cli-video-model") / "tiny-wan"
    WanPipeline(tokenizer=tokenizer, text_encoder=encoder.eval(), **parts).save_pretrained(out)
    return out


@pytest.mark.parametrize("verb", [["profile"], ["hierarchy"], ["derive", "stas"], ["stas-trial"]])
def test_every_verb_has_help(verb: list[str]) -> None:
    assert "Usage" in cli(*verb, "--help")


def test_alphas_are_numbers_none_or_left_to_the_default() -> None:
    assert [_alpha(text) for text in ("auto", "none", "1.2", "0")] == ["auto", None, 1.2, 0.0]
    with pytest.raises(WorkbenchError, match="alpha = 'much' can't be read; write a number like 1.2, or `none`"):
        _alpha("much")


def test_a_window_is_written_alike_to_derive_and_to_vary() -> None:
    for text in ("step_fraction:0-0.4", "sigma:0.6-1", "early"):
        over = parse_over([f"window={text}"], GRID)
        assert window_of(over["window"][0])[1] == parse_window(text).model_dump(mode="json"), text
    assert parse_window("step_fraction:0-0.4") == DEFAULT_WINDOW, "what the help says is what the default is"
    assert parse_window("auto") == "auto"
    for text in ("0-0.4", "steps:0-0.4"):
        for taken in (parse_window, window_of):
            with pytest.raises(SpecError, match="like sigma:0.6-1; shares .* like step_fraction:0-0.4"):
                taken(text)


def test_what_a_trial_varies_besides() -> None:
    assert parse_over(["alpha,window"], GRID) == {"alpha": GRID["alpha"], "window": GRID["window"]}
    assert parse_over(["boundary_width=2,0.125", "reference=joint"], GRID) == {
        "boundary_width": [2, 0.125],
        "reference": ["joint"],
    }
    with pytest.raises(WorkbenchError, match="'weight' has no default values. Name alpha, window"):
        parse_over(["weight"], GRID)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["profile", "--width", "18"], "boundary_width = 18 can't be used with 36 tokens a frame; valid is"),
        (["hierarchy", "--width", "0"], "boundary_width = 0 can't be used"),
        (["hierarchy", "--channels", "99"], "99"),
        (["profile", "--channels", "x"], "channels = 'x' can't be read"),
        (["profile", "--branch", "both"], "both"),
        (["derive", "stas", "--alpha-first", "much"], "alpha = 'much' can't be read"),
        (["derive", "stas", "--alpha-first", "101"], "alpha_first"),
        (["derive", "stas", "--window", "step_fraction:0.4-0.2"], "give 0 <= low < high <= 1"),
        (["derive", "stas", "--window", "0-0.4"], "window '0-0.4' does not say its unit"),
        (["derive", "stas", "--layers", "blocks.7"], "blocks.7"),
        (["derive", "stas", "--reference", "token"], "`reference`"),
        (["derive", "stas", "--branches", "both"], "`branches"),
        (["derive", "stas", "--channels", "0:1000000"], "channel"),
        (["derive", "stas", "--criterion", "mine"], "mine"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_with_the_value_in_it(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stores: dict[str, Path],
    tmp_path: Path,
    options: list[str],
    said: str,
) -> None:
    verb = options[:2] if options[0] == "derive" else options[:1]
    out = ["--out", tmp_path / "spec.json"] if options[0] == "derive" else []
    store = stores["stats" if out else "full"]  # without hidden states nothing is tested before
    assert said in error(capsys, monkeypatch, *verb, store, *options[len(verb) :], *out)
    assert not (tmp_path / "spec.json").exists()


def test_images_have_no_profile_no_hierarchy_and_no_stas(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, full_store: Path, tmp_path: Path
) -> None:
    for verb in (["profile", full_store], ["hierarchy", full_store], ["derive", "stas", full_store]):
        out = ["--out", tmp_path / "spec.json"] if "derive" in verb else []
        assert "video" in error(capsys, monkeypatch, *verb, *out)


def test_a_planted_hierarchy_becomes_a_spec(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, planted: Path, tmp_path: Path
) -> None:
    assert "supported" in cli("hierarchy", planted)
    cli("profile", planted)
    out = tmp_path / "spec.json"
    cli(
        "derive",
        "stas",
        planted,
        "--out",
        out,
        "--width",
        12,
        "--alpha-boundary",
        "none",
        "--window",
        "step_fraction:0-0.4",
        "--anyway",
    )
    spec: Any = load_spec(out)
    assert set(spec.channels) == set(MASSIVE)
    assert (spec.alpha_first, spec.alpha_boundary) == (1.0, None)
    assert spec.boundary_width.model_dump() == {"unit": "tokens", "value": 12}
    tested = spec.evidence.notes["hierarchy"]["boundary_width"]
    assert tested == 12, "the hierarchy was tested with the width that the spec has"
    assert "was tested with a boundary width" not in spec.evidence.notes.get("warning", "")
    assert "exists already" in error(capsys, monkeypatch, "derive", "stas", planted, "--out", out)


def test_the_hierarchy_is_tested_on_the_channels_of_the_specs_criterion(planted: Path, tmp_path: Path) -> None:
    out = tmp_path / "spec.json"
    cli("derive", "stas", planted, "--out", out, "--criterion", "top_k", "--anyway")
    spec: Any = load_spec(out)
    notes = spec.evidence.notes
    assert len(spec.channels) > len(MASSIVE), "by rank more channels are taken than were planted"
    assert notes["hierarchy"]["criterion"].startswith("top_k")
    assert set(spec.channels) <= set(notes["hierarchy"]["channels"])
    assert "was not tested." not in notes["warning"]


@pytest.mark.slow
def test_from_recording_to_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    store, out, few = tmp_path / "r.zarr", tmp_path / "spec.json", ["--prompts", tmp_path / "prompts.txt"]
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS[:5]))
    told = error(capsys, monkeypatch, "record", folder, *few, "--out", store, *SIZE, "--boundary-width", 5, "-q")
    assert (
        "boundary_width = 5 can't be used with 9 tokens a frame; valid is a whole number of tokens from 1 to 4" in told
    )
    cli("record", folder, *few, "--out", store, *SIZE, "--steps", STEPS, "--tier", "full", "--batch", 5,
        "--boundary-width", 2, "-q")  # fmt: skip
    refused = error(capsys, monkeypatch, "derive", "stas", store, "--out", out)
    assert "(`--anyway`)" in refused
    cli("derive", "stas", store, "--out", out, "--anyway", "--channels", 3, "--layers", "blocks.0,blocks.1")
    spec: Any = load_spec(out)
    assert (spec.layers, spec.channels) == (("blocks.0", "blocks.1"), (3,))
    assert (spec.boundary_width.unit, spec.boundary_width.tokens((3, 3, 3))) == ("fraction", 2)

    # Size and steps are the spec's recommendation.
    cli("sample", folder, *few, "--spec", out, "--compare", "--out", tmp_path / "videos", "-q")
    settings = json.loads((tmp_path / "videos" / "settings.json").read_text())
    assert {row["mode"] for row in settings["images"]} == {"plain", "cfg", "stas", "cfg+stas"}
    asked = settings["settings"]
    assert (asked["height"], asked["width"], asked["num_frames"], asked["steps"]) == (48, 48, 9, STEPS)

    trial = ["stas-trial", out, "--model", folder, *few, "--out", tmp_path / "trial", "-q"]
    for options, said in (
        (["--control", "high"], "controls ['high'] are unknown; choose of low, matched"),
        (["--over", "weight=1"], "can't vary ['weight']"),
        (["--over", "alpha=101"], "alpha_first"),
        (["--over", "window=0-0.4"], "window '0-0.4' does not say its unit"),
        (["--frames", 6], "num_frames = 6 must be 1 more than a multiple of 4"),
        (["--seeds", "a"], "seeds = 'a' can't be read"),
    ):
        assert said in error(capsys, monkeypatch, *trial, *options)
    shown = cli(*trial, "--store", store, "--control", "low", "--control", "late", "--over", "alpha=0.8")
    for name in ("stas", "low", "late", "alpha=0.8"):
        assert name in shown
    report, page = tmp_path / "report", tmp_path / "page.md"
    cli("report", store, "--spec", out, "--stas", tmp_path / "trial", "--comparison", tmp_path / "videos",
        "--page", page, "--out", report, "-q")  # fmt: skip
    numbers = json.loads((report / "numbers.json").read_text())
    assert {"profile", "hierarchy", "stas"} <= set(numbers)
    assert len(list((report / "previews").glob("steered_*.webp"))) == 5
    for heading in ("How wide is the boundary?", "Do they follow the video's frames?", "STAS"):
        assert f"## {heading}" in page.read_text()


def test_what_is_sampled_with_an_idle_spec_is_what_is_sampled_without(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    tmp_path: Path,
    stores: dict[str, Path],
) -> None:
    from workbench.models import fingerprint, load_pipeline

    out = tmp_path / "spec.json"
    cli("derive", "stas", stores["stats"], "--out", out, "--alpha-first", "none", "--alpha-boundary", "none")
    idle: Any = load_spec(out)
    pipe = load_pipeline(folder)
    idle = idle.replace(model={"family": "wan", **fingerprint(pipe), "weight_hash": "0" * 16})
    assert idle.idle
    from workbench import save_spec

    save_spec(idle, out, overwrite=True)
    call = ["sample", folder, "--prompt", "pizza", "--spec", out, *SIZE, "--steps", 2, "-q"]
    call += ["--mode", "cfg", "--mode", "cfg+stas", "--out", tmp_path / "v"]
    assert "strict" in error(capsys, monkeypatch, *call), "the spec is of other weights"
    with pytest.warns(UserWarning, match="derived from other weights"):
        cli(*call, "--no-strict")
    from workbench.store.video_files import frames_of

    cfg, stas = (frames_of(tmp_path / "v" / f"000_pizza_seed0_{mode}.png") for mode in ("cfg", "cfg-stas"))
    assert np.array_equal(cfg, stas)
