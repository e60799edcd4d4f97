"""Disruption, sweep and baselines on the command line, and what it takes for `--over`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.test_cli import cli, error
from workbench.cli.options import parse_grid
from workbench.cli.trials import DEFAULT_GRID, parse_over
from workbench.errors import WorkbenchError


def test_over_takes_names_for_default_values_and_values_of_its_own() -> None:
    assert parse_over(["layer,weight"]) == {key: DEFAULT_GRID[key] for key in ("layer", "weight")}
    assert parse_over(["weight=1,2.5", "channels=massive,7+9", "layer=auto,3"]) == {
        "weight": [1, 2.5],
        "channels": ["massive", [7, 9]],
        "layer": ["auto", 3],
    }


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (["weights"], "'weights' has no default values"),
        (["weight=1", "weight=2"], "'weight' is given twice"),
        (["layer,layer"], "'layer' is given twice"),
    ],
)
def test_over_says_what_it_can_not_use(items: list[str], said: str) -> None:
    with pytest.raises(WorkbenchError, match=said):
        parse_over(items)


def test_grids_are_read_or_refused() -> None:
    assert parse_grid("0:20:5") == [0, 5, 10, 15]
    with pytest.raises(WorkbenchError, match="can't be read"):
        parse_grid("0:9999999999")


def test_an_experiment_alone_is_no_sweep(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, full_store: Path, tmp_path: Path
) -> None:
    said = error(capsys, monkeypatch, "report", full_store, "--sweep", tmp_path, "--out", tmp_path / "r", "-q")
    assert "no table of measures" in said or "holds no" in said
    said = error(capsys, monkeypatch, "modulation", full_store, "--experiment", full_store)
    assert "timestep-swap" in said


@pytest.mark.slow
@pytest.mark.model
def test_what_is_tried_out_goes_from_the_command_line_into_the_report(tmp_path: Path) -> None:
    few = ["--prompts", str(tmp_path / "prompts.txt")]
    (tmp_path / "prompts.txt").write_text(os.linesep.join(["red apple", "dog face", "blue heart", "pizza", "rocket"]))
    store, spec = tmp_path / "r.zarr", tmp_path / "spec.json"
    cli("record", "mini-image", *few, "--out", store, "--steps", 4, "--batch", 5, "-q")
    cli("derive", "dg", store, "--out", spec)
    layer = json.loads(spec.read_text())["layer"]
    out = cli(
        "disruption", "mini-image", "--store", store, *few, "--layers", layer, "--draws", 1, "--no-windows",
        "--out", tmp_path / "disruption", "-q",
    )  # fmt: skip
    assert "matched random" in out
    out = cli("sweep", spec, "--model", "mini-image", "--over", "weight=1,2", "--mode", "cfg+dg", *few,
              "--out", tmp_path / "sweep", "-q")  # fmt: skip
    assert "cfg+dg" in out
    better = tmp_path / "better.json"
    cli("derive", "dg", store, "--sweep", tmp_path / "sweep", "--out", better)
    assert "sweep" in json.loads(better.read_text())["evidence"]["notes"]
    out = cli("baselines", better, "--model", "mini-image", "--store", store, *few, "--draws", 1,
              "--out", tmp_path / "baselines", "-q")  # fmt: skip
    assert "pag" in out
    cli("record", "mini-image", *few, "--out", tmp_path / "swap.zarr", "--steps", 4, "--batch", 5, "-q",
        "--experiment", "timestep-swap", "--grid", 2)  # fmt: skip
    assert "embedding" in cli("modulation", store, "--experiment", tmp_path / "swap.zarr")
    page = tmp_path / "page.md"
    cli("report", store, "--experiment", tmp_path / "swap.zarr", "--disruption", tmp_path / "disruption",
        "--sweep", tmp_path / "sweep", "--baselines", tmp_path / "baselines", "--spec", better, "--page", page,
        "--out", tmp_path / "report", "-q")  # fmt: skip
    html, text = (tmp_path / "report" / "index.html").read_text(), page.read_text()
    for heading in ("Is it the timestep?", "What do they carry?", "Does Detail Guidance add detail?", "Beside other"):
        assert heading in html
        assert f"## {heading}" in text
    assert "(report/figures/disruption.png)" in text
    numbers = json.loads((tmp_path / "report" / "numbers.json").read_text())
    assert {"causal", "disruption", "sweep", "baselines"} <= set(numbers)
