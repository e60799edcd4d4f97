"""The command line: the verbs' own words, one clear line for a mistake, the whole path on a real recording."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import workbench
from workbench.cli.app import app, main

run = CliRunner()
ROOT = Path(__file__).parents[1]


def cli(*words: Any) -> str:
    result = run.invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: Any) -> str:
    """What a user sees on a mistake: exit status 2 and one line on stderr."""
    monkeypatch.setattr(sys, "argv", ["workbench", *(str(word) for word in words)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: ")
    assert "Traceback" not in said
    return said


def test_every_verb_has_help() -> None:
    overview = cli("--help")
    verbs = "record locate modulation disruption derive sweep baselines sample demo study verify figures report models"
    for verb in verbs.split():
        assert verb in overview
        assert "Usage" in cli(verb, "--help")


def test_help_and_analysis_start_without_torch(full_store: Path) -> None:
    for words in (["--help"], ["verify", str(full_store)], ["locate", str(full_store)]):
        code = (
            "import sys; from workbench.cli.app import app\n"
            f"try: app({words!r})\n"
            "except SystemExit as e: assert not e.code, e.code\n"
            "assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_locate_modulation_and_verify_answer_from_a_store(full_store: Path) -> None:
    assert "not supported" in cli("locate", full_store) or "undecided" in cli("locate", full_store)
    assert "timestep-swap" in " ".join(cli("modulation", full_store).split())
    assert "complete and unchanged" in cli("verify", full_store)


def test_verify_fails_with_status_1_and_says_what_is_wrong(full_store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(full_store, tmp_path / "c.zarr"))
    file = next((copy / "h_mean").glob("c.*"))
    file.write_bytes(b"\0" * file.stat().st_size)
    result = run.invoke(app, ["verify", str(copy)])
    assert result.exit_code == 1
    assert "bytes and checksum differ" in " ".join(result.output.split())


def test_figures_are_written_as_png_pdf_and_csv(full_store: Path, tmp_path: Path) -> None:
    cli("figures", full_store, "--out", tmp_path / "f")
    names = {p.stem for p in (tmp_path / "f").iterdir()}
    assert {"layer_profile", "trajectory", "criteria"} <= names
    for name in names:
        assert {p.suffix for p in (tmp_path / "f").glob(f"{name}.*")} == {".png", ".pdf", ".csv"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["record", "no-such-model", "--prompts", "x"], "neither an embedded model (mini-image, mini-video)"),
        (["record", "mini-image", "--prompts", " "], "There are no prompts"),
        (["record", "mini-image", "--prompts", "x", "--seeds", "zero"], "seeds = 'zero' can't be read"),
        (["record", "mini-image", "--prompts", "x", "--seeds", "1,1"], "same seed is given more than once"),
        (["record", "mini-image", "--prompts", "x", "--dtype", "int8"], "dtype 'int8' is not one of"),
        (["record", "mini-image", "--prompts", "x", "--experiment", "time"], "experiment = 'time' can't be used"),
        (
            ["record", "mini-image", "--prompts", "x", "--experiment", "timestep-swap", "--grid", "few"],
            "grid = 'few' can't be read",
        ),
        (
            ["record", "mini-image", "--prompts", "x", "--experiment", "prompt-swap"],
            "prompt-swap with one prompt ('x')",
        ),
        (["record", "mini-image", "--prompts", "x", "--mediate", "all"], "mediate= belongs to an experiment"),
        (["locate", "nowhere.zarr"], "There is no recording at nowhere.zarr"),
        (["verify", "nowhere.zarr"], "There is no recording at nowhere.zarr"),
        (["report", "nowhere.zarr"], "There is no recording at nowhere.zarr"),
        (["derive", "dg", "nowhere.zarr"], "There is no recording at nowhere.zarr"),
        (["sample", "mini-image", "--prompt", "x", "--spec", "nowhere.json"], "nowhere.json"),
    ],
)
def test_a_mistake_is_one_clear_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error(capsys, monkeypatch, *words)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_criterion_or_branch_names_the_valid_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, full_store: Path
) -> None:
    assert "sun2024" in error(capsys, monkeypatch, "locate", full_store, "--criterion", "mine")
    assert "cond" in error(capsys, monkeypatch, "locate", full_store, "--branch", "left")


def test_a_folder_that_is_no_pipeline_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "no model_index.json" in error(capsys, monkeypatch, "models", tmp_path)


def test_a_report_cannot_be_written_where_a_file_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, full_store: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("mine")
    assert "can't be written" in error(capsys, monkeypatch, "report", full_store, "--out", tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_families_are_listed_from_their_rows() -> None:
    assert "sd3" in cli("models")


def test_the_report_is_one_file_that_loads_nothing_and_repeats_its_numbers(full_store: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        cli("report", full_store, "--out", tmp_path / name, "--quiet")
    page = (tmp_path / "a" / "index.html").read_text()
    assert 'src="http' not in page
    assert "<script" not in page
    assert page.count("data:image/png;base64,") >= 5
    assert (tmp_path / "a" / "numbers.json").read_bytes() == (tmp_path / "b" / "numbers.json").read_bytes()
    numbers = json.loads((tmp_path / "a" / "numbers.json").read_text())
    assert numbers["locate"]["n_samples"] == 4
    for file in (tmp_path / "a" / "figures").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / "figures" / file.name).read_bytes(), file.name


@pytest.mark.model
def test_an_experiment_is_planned_and_refused_before_anything_is_generated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "s.zarr"
    words = [
        "record",
        "mini-image",
        "--prompt",
        "red apple",
        "--seeds",
        "0:2",
        "--experiment",
        "timestep-swap",
        "--out",
    ]
    said = " ".join(cli(*words, out, "--steps", 8, "--mediate", "2:4", "--plan").split())
    assert f"2 samples, 2 branches, 9 layers, {5 * 5 + 2 * 3 * 20} cells" in said
    for more, message in [
        (["--grid", "1"], "A grid of 1 steps can't be used"),
        (["--grid", "0,50"], "steps [50] are outside"),
        (["--mediate", "transformer_blocks.9"], "There is no block named 'transformer_blocks.9'"),
        (["--timesteps", "0"], "takes its steps from the grid"),
    ]:
        assert message in error(capsys, monkeypatch, *words, out, *more)
    assert not out.exists()


@pytest.mark.model
def test_an_experiment_is_recorded_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    cli("record", "mini-image", "--prompt", "red apple", "--steps", 4, "--experiment", "timestep-swap", "--grid", "0:4:3",
        "--mediate", "transformer_blocks.2", "--out", out, "--quiet")  # fmt: skip
    recording = workbench.open(out)
    assert recording.attrs["experiment"] == "timestep-swap"
    assert list(recording.step.values) == [0, 3] * 5
    assert set(recording.swap_block.values) == {"", "transformer_blocks.2"}
    assert "complete and unchanged" in cli("verify", out)


@pytest.mark.slow
@pytest.mark.model
def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    words = [
        "record",
        "mini-image",
        "--prompts",
        "red apple",
        "--seeds",
        "0:50",
        "--out",
        str(tmp_path / "s.zarr"),
        "-q",
    ]
    child = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.argv = ['workbench', *{words!r}]; from workbench.cli import main; main()"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not any((tmp_path / "s.zarr" / "h_mean_abs").glob("c.*")) and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "run the same command to continue" in said
    assert "Traceback" not in said


def test_a_spec_of_another_model_is_not_shown_in_a_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, full_store: Path, tmp_path: Path
) -> None:
    spec = workbench.derive_dg(
        workbench.open(full_store), channels=[3], layer="transformer_blocks.1", criterion="top_k"
    )
    other = spec.replace(model=spec.model.model_copy(update={"weight_hash": "0" * 16}))
    workbench.save_spec(other, tmp_path / "other.json")
    said = error(capsys, monkeypatch, "report", full_store, "--spec", tmp_path / "other.json", "--out", tmp_path / "r")
    assert "the spec is of another model" in said
    assert not (tmp_path / "r" / "index.html").exists()
