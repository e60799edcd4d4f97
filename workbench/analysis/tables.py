"""Tables of measures on disk: what `disrupt`, `sweep`, `baselines` and `stas_trial` measured, beside the images that it is of.

One pair of functions for all; reading needs no torch.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import xarray as xr

from workbench.analysis.visits import TEXT
from workbench.errors import AnalysisError, StoreError
from workbench.store.create import explain

Kind = Literal["disruption", "sweep", "baselines", "stas"]

COMMAND: dict[str, str] = {"disruption": "disruption", "sweep": "sweep", "baselines": "baselines", "stas": "stas-trial"}
"""Command that makes each kind of table."""

TABLE_FOLDER = "_measured"
"""Where, in the folder of a run, its table lies. A name with ``_`` is no condition."""

FORMAT = "dit-workbench/"
"""What the attribute ``format`` of a table begins with; its kind follows."""


def write_table(table: xr.Dataset, folder: str | Path, kind: Kind) -> xr.Dataset:
    """Write a table of measures into the folder of its run, in place of an older one.

    It is built beside its place and renamed, so a reader never sees a part of it; if that fails, the older one stays.

    Parameters
    ----------
    table : xarray.Dataset
        Attributes JSON-able.
    folder : str or Path
        Made if it isn't there.
    kind : {"disruption", "sweep", "baselines", "stas"}
        Becomes the attribute ``format``.

    Returns
    -------
    xarray.Dataset
        As `open_table` reads it.

    Raises
    ------
    StoreError
        If it can't be written.
    """
    folder = Path(folder)
    place = folder / TABLE_FOLDER
    table = _text_as(table, TEXT).assign_attrs(format=FORMAT + kind)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        around = Path(tempfile.mkdtemp(prefix=f".{TABLE_FOLDER}-", dir=folder))
        new, old = around / "new", around / "old"
        try:
            table.drop_encoding().to_zarr(str(new), zarr_format=3, consolidated=False)
            if place.exists():
                os.replace(place, old)
            os.replace(new, place)
        finally:
            if old.exists() and not place.exists():
                os.replace(old, place)
            shutil.rmtree(around, ignore_errors=True)
    except OSError as error:
        raise StoreError(explain(error, folder)) from error
    return _text_as(table, np.dtype(str))


def open_table(source: xr.Dataset | str | Path, kind: Kind | None = None) -> xr.Dataset:
    """Read a table of measures.

    Parameters
    ----------
    source : xarray.Dataset, str or Path
        The folder of a run, or the table's own folder; or what was read already, which is only checked.
    kind : {"disruption", "sweep", "baselines", "stas"}, optional
        What it must be; default: any of these.

    Raises
    ------
    AnalysisError
        If there is none, or of another kind.
    """
    if isinstance(source, xr.Dataset):
        # A table or an analysis put together by hand need not say what it is.
        if "format" in source.attrs:
            _check(source, "the table", kind)
        return source
    path = Path(source)
    folder = path if path.name == TABLE_FOLDER else path / TABLE_FOLDER
    command = COMMAND[kind] if kind else " or ".join(COMMAND.values())
    again = f"Run the same `workbench {command}` again; what is generated already is kept."
    try:
        table: xr.Dataset = xr.open_zarr(str(folder), consolidated=False, chunks=None).load()
    except Exception as error:  # a missing or damaged store makes zarr and xarray raise all kinds of errors
        raise AnalysisError(f"{path} has no table of measures. {again}") from error
    if "format" not in table.attrs:
        raise AnalysisError(f"the table of measures in {path} is of an older version. {again}")
    _check(table, str(path), kind)
    return _text_as(table, np.dtype(str))


def _check(table: xr.Dataset, where: str, kind: Kind | None) -> None:
    found, valid = str(table.attrs["format"]), [FORMAT + name for name in ((kind,) if kind else get_args(Kind))]
    if found not in valid:
        raise AnalysisError(f"{where} has format {found!r}, and what is asked for is {' or '.join(map(repr, valid))}.")


def _text_as(table: xr.Dataset, dtype: np.dtype[np.str_] | np.dtypes.StringDType) -> xr.Dataset:
    """All text in one type: Zarr's on disk, numpy's own in memory."""
    text = {str(name): table[name] for name in table.variables if table[name].dtype.kind in "UTO"}
    return table.assign({name: (a.dims, np.array(a.values.tolist(), dtype=dtype), a.attrs) for name, a in text.items()})
