"""`workbench derive stas --sweep`: a trial's folder decides, and the command line says what it decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.planted_video import TRUTHS, WAN_SIZE, planted_wan
from tests.steering.test_stas_evidence import GAIN, trial
from tests.test_cli import cli, error
from tests.tiny_wan import encode_wan
from workbench import open as open_store
from workbench.analysis.tables import write_table
from workbench.record import record
from workbench.steering.derive_stas import derive_stas
from workbench.steering.source import model_of_recording
from workbench.steering.spec import load_spec


def test_folder_of_a_trial_decides(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipe = planted_wan(TRUTHS["all three levels"])
    pipe.vae = None  # nothing here looks at pictures
    prompts = [f"prompt {i}" for i in range(6)]
    store = record(
        pipe, prompts=prompts, seeds=[0], steps=2, batch_size=6, encode=encode_wan, progress=False,
        out=tmp_path / "planted.zarr", **WAN_SIZE,
    )  # fmt: skip
    spec = derive_stas(open_store(store))
    model = model_of_recording(open_store(store))
    for name, gain in (("best", GAIN), ("none", {})):
        table = trial(spec, gain, prompts=64, noise=0.15, model=model)
        write_table(table, tmp_path / name, "stas")
    out = tmp_path / "best.json"
    said = cli("derive", "stas", store, "--sweep", tmp_path / "best", "--out", out)
    assert "By the trial, supported: best chosen" in said
    best = load_spec(out)
    assert (best.alpha_first, best.evidence.provenance["alpha_first"]) == (1.2, "measured")
    said = cli("derive", "stas", store, "--sweep", tmp_path / "none", "--out", tmp_path / "none.json")
    assert "none is better than plain videos" in said
    assert load_spec(tmp_path / "none.json").alpha_first == spec.alpha_first
    told = error(
        capsys, monkeypatch, "derive", "stas", store, "--sweep", tmp_path / "best", "--alpha-first", "1.1",
        "--out", tmp_path / "x.json",
    )  # fmt: skip
    assert "alpha_first is given too" in told
    assert not (tmp_path / "x.json").exists()
