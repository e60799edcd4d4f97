"""Lay a recording out on disk: all metadata first, in one step, so that a store is either there or not."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from workbench.errors import StoreError
from workbench.store.checksum import coordinates_checksum
from workbench.store.schema import BY_NAME, UNIT, coordinates_of, dims_of, stored


def create(
    path: str | Path,
    *,
    coordinates: Mapping[str, np.ndarray],
    variables: Mapping[str, tuple[int, ...]],
    chunks: Mapping[str, tuple[int, ...]],
    hidden_dtype: str,
    attributes: Mapping[str, Any],
) -> None:
    """Make an empty recording.

    The folder appears under its name only when every array's metadata is in it: it is built beside its place and renamed.

    Parameters
    ----------
    path : str or Path
        Must not exist.
    coordinates : mapping
        Coordinate name (of :func:`~workbench.store.schema.coordinates_of` the attributes) → values.
    variables, chunks : mapping
        Variable name → shape, and → chunk shape.
    hidden_dtype : {"float32", "float16", "bfloat16"}
        How ``hidden`` is kept; bfloat16 as its bit patterns.
    attributes : mapping
        JSON-able root attributes.

    Raises
    ------
    StoreError
        If the path exists or can't be written.
    """
    path = Path(path)
    if path.exists():
        raise StoreError(f"{path} exists already; choose another name or remove it.")
    around: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: after an interrupt, zarr's own thread may still be writing into it.
        around = Path(tempfile.mkdtemp(prefix=f".{path.name}.creating-", dir=path.parent))
        building = around / "store"
        group = zarr.create_group(
            store=str(building),
            attributes={
                **attributes,
                "variables": sorted(variables),
                "coordinates_checksum": coordinates_checksum(coordinates),
            },
        )
        _coordinates(group, coordinates, coordinates_of(attributes))
        for name, shape in variables.items():
            _variable(group, name, shape, chunks[name], hidden_dtype)
        os.replace(building, path)
    except OSError as error:
        raise StoreError(explain(error, path)) from error
    finally:
        if around is not None:
            shutil.rmtree(around, ignore_errors=True)


def _coordinates(
    group: zarr.Group, coordinates: Mapping[str, np.ndarray], known: Mapping[str, tuple[str, str]]
) -> None:
    for name, values in coordinates.items():
        dimension, dtype = known[name]
        array = group.create_array(
            name=name,
            shape=(len(values),),
            dtype=str if dtype == "str" else dtype,
            chunks=(max(len(values), 1),),
            compressors=None,
            dimension_names=(dimension,),
        )
        array[:] = np.asarray(values, dtype=object if dtype == "str" else dtype)
    # xarray's (CF's) way to say which arrays are coordinates although no dimension is named like them.
    group.attrs["coordinates"] = " ".join(name for name in coordinates if known[name][0] != name)


def _variable(group: zarr.Group, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], hidden_dtype: str) -> None:
    variable = BY_NAME[name]
    attributes: dict[str, Any] = {"long_name": variable.long_name}
    fill, dtype = stored(name, hidden_dtype)
    if name == "hidden":
        attributes["torch_dtype"] = hidden_dtype
    group.create_array(
        name=name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        compressors=None,
        fill_value=fill,
        dimension_names=dims_of(name, len(shape)),
        attributes=attributes,
        # One flat folder an array: five nested folders a chunk cost more than the chunk itself.
        chunk_key_encoding={"name": "default", "separator": "."},
        # A chunk of nothing but fill values must still be written: "missing" has to mean "never recorded".
        config={"write_empty_chunks": True},
    )


def chunk_shapes(
    sizes: Mapping[str, int], names: Mapping[str, tuple[int, ...]], block: int, planes: bool
) -> dict[str, tuple[int, ...]]:
    """Chunk shapes under which every write of the recorder is exactly whole chunks.

    Parameters
    ----------
    sizes : mapping
        Dimension → length.
    names : mapping
        Variable → shape.
    block : int
        How many timesteps of one sample are written together.
    planes : bool
        True if ``hidden`` is too large for that and goes visit by visit.
    """
    shapes = {}
    for name, shape in names.items():
        chunk = list(shape)
        for axis, dimension in enumerate(dims_of(name, len(shape))):
            if dimension == "sample":
                chunk[axis] = 1
            elif dimension == "timestep":
                chunk[axis] = min(block, shape[axis])
        if name == "hidden" and planes:
            # 256 channels × all tokens: one channel of a visit is then a small read.
            chunk = [1] * len(UNIT) + [sizes["token"], min(256, sizes["channel"])]
        shapes[name] = tuple(max(1, length) for length in chunk)
    return shapes


def explain(error: OSError, path: Path) -> str:
    """Say what an operating-system error on a store means and what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"The disk is full (or over its quota) at {path}: {error.strerror}. What was complete is safe. Free some space "
            "and run the same command again: it continues where it stopped."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path} can't be written: {error.strerror}. Choose a folder you may write to with --out."
    return f"{path} can't be written: {error}."
