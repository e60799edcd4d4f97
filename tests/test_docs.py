"""The documents hold together: links lead somewhere, and nothing of one machine stands in them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "stores").glob("*.md"),
    *(ROOT / "reports").glob("*.md"),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_the_status_page_is_short() -> None:
    assert len((ROOT / "docs" / "status.md").read_text().strip().splitlines()) <= 12


def test_constraints_pin_torch_without_a_local_suffix() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert "torch==2.13.0" in lines
    assert [line for line in lines if "+" in line or " @ " in line] == []


def test_no_path_of_one_machine_is_committed() -> None:
    done = subprocess.run(
        [
            "git",
            "-C",
            str(ROOT),
            "grep",
            "-nIE",
            r"/(root|home/[a-z]+)/|/tmp/[a-z]",
            "--",
            "*.md",
            "workbench/*.py",
            "Makefile",
        ],
        capture_output=True,
        text=True,
    )
    assert done.stdout == ""
