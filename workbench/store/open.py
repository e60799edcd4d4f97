"""Open a recording and see at once what is in it and what is not."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from workbench.errors import StoreError
from workbench.store.checksum import coordinates_checksum
from workbench.store.schema import (
    ATTRIBUTES,
    BY_NAME,
    FORMAT,
    PARTIAL,
    SCHEMA_VERSION,
    bf16_to_float32,
    coordinates_of,
    dims_of,
)


def open_recording(path: str | Path, *, complete_only: bool = True) -> xr.Dataset:
    """Open a recording lazily.

    Parameters
    ----------
    path : str or Path
        The store's folder.
    complete_only : bool
        Mask the values of units without a completion marker, so that what a killed run left half-written reads as NaN.

    Returns
    -------
    xarray.Dataset
        As in ``docs/schema.md``; ``hidden`` is decoded to floating point; arrays are dask arrays, one dask chunk per
        Zarr chunk. The attribute ``path`` is where it lies.

    Raises
    ------
    StoreError
        If there is no recording, or it is damaged, foreign, or of a newer schema.
    """
    path = Path(path)
    attributes = read_attributes(path)
    check(path, attributes)
    try:
        recording: xr.Dataset = xr.open_zarr(path, consolidated=False, mask_and_scale=False, chunks={})
    except Exception as error:  # whatever a damaged store makes zarr or xarray raise, the user's trouble is the store
        raise StoreError(f"{path} is damaged: {_reason(error)} `workbench verify {path}` says which parts.") from error
    if recording.get("hidden") is not None and recording.hidden.attrs.get("torch_dtype") == "bfloat16":
        recording["hidden"] = _decode(recording.hidden)
    if complete_only:
        recording = _mask(recording)
    ordered = [name for name in BY_NAME if name in recording.data_vars]
    recording = recording[ordered].assign_coords({name: _plain(recording[name]) for name in recording.coords})
    recording.attrs = {
        k: v for k, v in attributes.items() if k not in ("coordinates", "variables", "coordinates_checksum")
    } | {"path": str(path)}
    return recording


def read_attributes(path: str | Path) -> dict[str, Any]:
    """Root attributes of a recording, after checking that it is one.

    Raises
    ------
    StoreError
        As :func:`open_recording`.
    """
    path = Path(path)
    if not path.exists():
        raise StoreError(f"There is no recording at {path}. Record one with `workbench record MODEL --out {path}`.")
    try:
        attributes = dict(zarr.open_group(str(path), mode="r").attrs)
    except Exception as error:  # see open_recording
        raise StoreError(
            f"{path} is not a recording of the workbench: {_reason(error)} It was left as it is."
        ) from error
    if attributes.get("format") != FORMAT:
        raise StoreError(
            f"{path} is a Zarr group, but not a recording of the workbench (its attribute 'format' is "
            f"{attributes.get('format')!r}, not {FORMAT!r}). It was left as it is."
        )
    if attributes.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {attributes.get('schema_version')!r}; this workbench reads version "
            f"{SCHEMA_VERSION}. Open it with the version that wrote it: {attributes.get('versions')}."
        )
    missing = [name for name in ATTRIBUTES if name not in attributes]
    if missing:
        raise StoreError(f"{path} is damaged: its attributes {', '.join(missing)} are missing.")
    return attributes


def check(path: Path, attributes: dict[str, Any]) -> None:
    """Check that all is there that the attributes promise, of the right size, with unchanged coordinates.

    Looks at metadata, coordinates and the sizes of files; what stands in them is for ``verify``.

    Raises
    ------
    StoreError
        Naming the part that is missing or damaged.
    """
    group: Any = zarr.open_group(str(path), mode="r")
    try:
        coordinates = {name: np.asarray(group[name][:]) for name in coordinates_of(attributes)}
        arrays = {name: group[name] for name in attributes["variables"]}
    except Exception as error:  # a missing or damaged array makes zarr raise all kinds of errors
        raise StoreError(f"{path} is damaged: {_reason(error)} Record it anew into another folder.") from error
    if coordinates_checksum(coordinates) != attributes["coordinates_checksum"]:
        raise StoreError(f"{path} is damaged: its coordinates were changed. Record it anew into another folder.")
    for name, array in arrays.items():
        if array.metadata.dimension_names != dims_of(name, array.ndim):
            raise StoreError(f"{path} is damaged: {name} has dimensions {array.metadata.dimension_names}.")
        # Nothing is compressed, so every chunk file has the same known size.
        whole = math.prod(array.chunks) * array.dtype.itemsize
        with os.scandir(path / name) as files:
            chunks = [f for f in files if f.name.startswith("c.") and not f.name.endswith(PARTIAL)]
            torn = [f.name for f in chunks if f.stat().st_size != whole]
        if torn:
            raise StoreError(
                f"{path} is damaged: {name} has {len(torn)} truncated files ({torn[0]}). `workbench verify {path}` says "
                "which samples they belong to; the same `workbench record` command with --repair records those anew."
            )


def _plain(coordinate: xr.DataArray) -> xr.DataArray:
    """A coordinate in memory, texts as numpy's fixed-width ones, which all of pandas and seaborn understand."""
    values = coordinate.values
    if values.dtype.kind == "T":
        values = np.array(values.tolist(), dtype=str)
    return xr.DataArray(values, dims=coordinate.dims, attrs=coordinate.attrs)


def _decode(bits: xr.DataArray) -> xr.DataArray:
    decoded: xr.DataArray = xr.apply_ufunc(
        bf16_to_float32, bits, dask="parallelized", output_dtypes=[np.float32], keep_attrs=True
    )
    return decoded.assign_attrs(bits.attrs)


def _mask(recording: xr.Dataset) -> xr.Dataset:
    """Let units without a marker read as absent. Costs nothing when all are complete, which one small read tells."""
    marks, whole = recording.unit_checksum.load() != 0, recording.sample_checksum.load() != 0
    if bool(marks.all()) and bool(whole.all()):
        return recording
    for name, array in {str(key): recording[key] for key in recording.data_vars}.items():
        variable = BY_NAME.get(name)
        if variable is None or variable.part == "marker":
            continue
        there = {"unit": marks, "step": marks.all("layer"), "sample": whole}[variable.part]
        recording[name] = array.where(there, np.asarray(variable.fill, dtype=array.dtype)).transpose(*array.dims)
        recording[name].attrs = array.attrs
    return recording


def _reason(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return text if text.endswith(".") else f"{text or type(error).__name__}."
