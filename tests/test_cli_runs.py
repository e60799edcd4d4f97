"""Options that every trial has reach its function, behind the command's own."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from workbench.cli.runs import OPTIONS, Run, trial
from workbench.errors import WorkbenchError


@pytest.fixture
def app() -> tuple[typer.Typer, list[Any]]:
    made, got = typer.Typer(), []

    @made.command()
    @trial
    def command(model: str, draws: int = 1, *, run: Run) -> None:
        """What it does."""
        got.append((model, draws, run))

    return made, got


def test_what_is_given_is_passed_on_in_the_words_of_the_function(app: tuple[typer.Typer, list[Any]]) -> None:
    given = [
        "m",
        "--draws",
        "3",
        "--prompt",
        "pizza",
        "--prompt",
        "rocket",
        "--seeds",
        "0:3",
        "--steps",
        "4",
        "--batch",
        "2",
    ]
    given += ["--guidance", "3.5", "--height", "32", "--width", "48", "--limit", "2", "-y", "-q"]
    given += ["--dtype", "float16", "--device", "cpu", "--revision", "v1"]
    assert CliRunner().invoke(app[0], given).exit_code == 0
    ((model, draws, run),) = app[1]
    assert (model, draws) == ("m", 3)
    assert run.call == {
        "prompts": ["pizza", "rocket"], "seeds": [0, 1, 2], "steps": 4, "guidance_scale": 3.5, "height": 32, "width": 48,
        "batch_size": 2, "progress": False, "limit_s": 120.0, "yes": True,
    }  # fmt: skip
    assert run.load == {"revision": "v1", "dtype": "float16", "device": "cpu"}


def test_help_names_own_and_shared_options(app: tuple[typer.Typer, list[Any]]) -> None:
    said = CliRunner().invoke(app[0], ["--help"], env={"COLUMNS": "200"}).output
    assert "What it does." in said
    assert all(f"--{name}" in said for name in ("draws", *OPTIONS))
    assert "--run" not in said


def test_a_seed_that_is_none_is_refused_before_the_command_runs(app: tuple[typer.Typer, list[Any]]) -> None:
    result = CliRunner().invoke(app[0], ["m", "--seeds", "a"])
    assert isinstance(result.exception, WorkbenchError)
    assert not app[1]
