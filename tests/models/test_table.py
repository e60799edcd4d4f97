"""The page of models is made from the rows."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import diffusers

from workbench.models.rows import FAMILIES, REFUSED
from workbench.models.table import lines, markdown

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_page_is_what_the_rows_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), "python -m workbench.models.table > docs/models.md"


def test_every_family_has_a_name_and_a_class_of_its_own() -> None:
    assert len({line.family for line in lines()}) == len({row.transformer for row in FAMILIES}) == len(FAMILIES)


def test_every_transformer_of_diffusers_has_a_row_or_a_reason() -> None:
    known = {row.transformer.rsplit(".", 1)[1] for row in FAMILIES} | {name.rsplit(".", 1)[1] for name in REFUSED}
    transformers = importlib.import_module("diffusers.models.transformers")
    found = {
        name
        for name in dir(diffusers)
        if ("Transformer" in name or "DiT" in name)
        and inspect.isclass(getattr(diffusers, name, None))
        and issubclass(getattr(diffusers, name), diffusers.ModelMixin)
        and getattr(diffusers, name).__module__.startswith(transformers.__name__)
    }
    assert found - known == set()
