"""The page on methods lists what the registry of criteria holds, and the numbers it quotes have a place to go."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.analysis.criteria import CRITERIA, describe
from workbench.analysis.locate import locate
from workbench.analysis.modulation import modulation

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


@pytest.mark.parametrize("row", describe(), ids=lambda row: f"{row['criterion']}.{row['parameter']}")
def test_every_parameter_stands_in_the_table_with_its_default(row):
    line = f"| `{row['criterion']}` | `{row['parameter']}` | {row['default']:g} | {row['meaning']} |"
    assert line in PAGE.read_text(encoding="utf-8").splitlines()


def test_every_criterion_stands_in_the_table_with_its_version():
    text = PAGE.read_text(encoding="utf-8")
    for c in CRITERIA.values():
        assert f"| `{c.name}` | {c.version} | {c.summary} | {c.source} |" in text


def test_the_script_can_put_its_tables_in():
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("<!-- error rates: begin -->") == text.count("<!-- error rates: end -->") == 1


@pytest.mark.parametrize("analysis", [locate, modulation])
def test_analyses_take_a_recording_first_and_options_by_keyword(analysis):
    import inspect

    first, *rest = inspect.signature(analysis).parameters.values()
    assert first.name == "recording"
    assert all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in rest)
