"""Checksums of units and samples: CRC-32 over the raw little-endian bytes, in the schema's order of variables."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from workbench.store.schema import COORDINATES, EXPERIMENT_COORDINATES, PRESENT, VARIABLES, VIDEO_COORDINATES


def checksum(parts: Mapping[str, np.ndarray], crc: int = 0) -> int:
    """Marker of the given arrays: 2³² + CRC-32 of their bytes.

    Parameters
    ----------
    parts : mapping of str to array
        Variable name → the values of this unit (or sample), of any shape; the schema's order counts, not this one's.
    crc : int
        CRC-32 of the bytes before these.
    """
    for variable in VARIABLES:
        if variable.name in parts:
            crc = update(crc, parts[variable.name])
    return PRESENT + crc


def coordinates_checksum(coordinates: Mapping[str, np.ndarray]) -> int:
    """CRC-32 over all coordinates, by name; texts as UTF-8 with a zero byte between."""
    crc = 0
    for name in sorted(coordinates):
        dtype = (COORDINATES | EXPERIMENT_COORDINATES | VIDEO_COORDINATES)[name][1]
        if dtype == "str":
            crc = zlib.crc32("\0".join(map(str, coordinates[name])).encode(), crc)
        else:
            crc = update(crc, np.asarray(coordinates[name], dtype=dtype))
    return crc


def update(crc: int, values: np.ndarray) -> int:
    """Continue a CRC-32 with an array's bytes."""
    values = np.ascontiguousarray(values)
    if values.dtype.byteorder == ">":
        values = values.astype(values.dtype.newbyteorder("<"))
    return zlib.crc32(values.data.cast("B") if values.size else b"", crc)
