"""Every row says what plain hooks see in a real generation with a tiny model of its class."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import tests.families
from tests.families.base import Family
from tests.families.check import check
from workbench.models.rows import FAMILIES as ROWS

KNOWN: tuple[Family, ...] = tuple(
    family
    for module in sorted(pkgutil.iter_modules(tests.families.__path__), key=lambda module: module.name)
    if not module.name.startswith("test_")
    for family in getattr(importlib.import_module(f"tests.families.{module.name}"), "FAMILIES", ())
)


@pytest.mark.parametrize("family", KNOWN, ids=lambda family: family.name)
def test_a_row_says_what_plain_hooks_see(family: Family) -> None:
    rows = [row for row in ROWS if row.transformer == family.transformer]
    assert len(rows) == 1, f"{family.transformer} has {len(rows)} rows"
    assert check(family, rows[0]) == []


@pytest.mark.slow
def test_every_pipeline_of_every_row_was_tried() -> None:
    tried: dict[str, set[str]] = {}
    for family in KNOWN:
        tried.setdefault(family.transformer, set()).add(type(family.build()).__name__)
    claimed = {row.transformer: {pipeline.name for pipeline in row.pipelines} for row in ROWS}
    assert {
        name: names - tried.get(name, set()) for name, names in claimed.items() if names - tried.get(name, set())
    } == {}
