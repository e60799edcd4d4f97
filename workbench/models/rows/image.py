"""Rows of families, one a transformer class."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.models.layout import Layout

ROWS: tuple[Layout, ...] = ()

#: Class → why it has no row.
REFUSED: Mapping[str, str] = MappingProxyType({})
