"""Checksums of units and samples: CRC-32 over the raw little-endian bytes, in the schema's order of variables."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from workbench.store.schema import PRESENT, VARIABLES


def checksum(parts: Mapping[str, np.ndarray]) -> int:
    """Marker of the given arrays: 2³² + CRC-32 of their bytes.

    Parameters
    ----------
    parts : mapping of str to array
        Variable name → the values of this unit (or sample), of any shape. Names outside the schema are refused by
        ``KeyError`` in the writer long before; here only the schema's order counts.
    """
    crc = 0
    for variable in VARIABLES:
        if variable.name in parts:
            crc = update(crc, parts[variable.name])
    return PRESENT + crc


def update(crc: int, values: np.ndarray) -> int:
    """Continue a CRC-32 with an array's bytes."""
    values = np.ascontiguousarray(values)
    if values.dtype.byteorder == ">":
        values = values.astype(values.dtype.newbyteorder("<"))
    return zlib.crc32(values.data.cast("B") if values.size else b"", crc)
