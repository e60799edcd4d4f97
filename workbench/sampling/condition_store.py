"""Where the results of conditions lie: one Zarr group a condition, so that more of them can be added later.

::

    out/                      attributes: format, settings (what every condition shares), prompts and seeds
      plain/                  one group a condition; attributes: name, factors, identity
        image                 (sample, y, x, rgb) uint8, of videos (sample, video_frame, y, x, rgb)
        latent_final          (sample, latent_channel, latent_y, latent_x) float32, of videos with latent_frame
        seconds, finite       (sample)
        <reports>             (sample) float64, what the condition measured of itself
        marker                (sample) 2³² + CRC-32 of image and latents, 0 = absent

Packed latents (a row a token) are latent_final (sample, token, latent_channel). Folders whose names begin with ``_`` or ``.``
are no conditions. A chunk is a batch, and its markers are written last: a batch is there, or it is not. A batch that can't be
read, or doesn't match its markers, counts as absent.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from workbench.errors import StoreError
from workbench.store.checksum import update
from workbench.store.create import explain
from workbench.store.schema import PRESENT, dims_of

FORMAT = "dit-workbench/conditions"
VERSION = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+,=-]{0,119}")


class ConditionStore:
    """A folder of conditions that share their samples and settings.

    Parameters
    ----------
    path : str or Path
        Made if it isn't there.
    settings : mapping
        JSON-able; everything that decides the numbers besides the condition itself. A folder with other settings is
        refused.
    samples : sequence of (prompt, seed)
    batch_size : int
        Samples that are written together.

    Raises
    ------
    StoreError
        If the folder holds something else, was made with other settings, or can't be written.
    """

    def __init__(
        self, path: str | Path, *, settings: Mapping[str, Any], samples: Sequence[tuple[str, int]], batch_size: int
    ) -> None:
        self.path, self.samples, self.batch_size = Path(path), list(samples), batch_size
        wanted = plain(dict(settings))
        if not self.path.exists() or not any(self.path.iterdir() if self.path.is_dir() else [0]):
            self._create(wanted)
        else:
            refuse_other("the folder", self.path, read_attributes(self.path)["settings"], wanted)

    def _create(self, settings: dict[str, Any]) -> None:
        attributes = {"format": FORMAT, "version": VERSION, "settings": settings} | {
            "prompts": [prompt for prompt, _ in self.samples],
            "seeds": [seed for _, seed in self.samples],
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            around = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.creating-", dir=self.path.parent))
            try:
                zarr.create_group(store=str(around / "store"), attributes=attributes)
                os.replace(around / "store", self.path)
            finally:
                shutil.rmtree(around, ignore_errors=True)
        except OSError as error:
            raise StoreError(explain(error, self.path)) from error

    def missing(self, name: str, identity: Mapping[str, Any]) -> list[int]:
        """Starts of the batches that a condition still lacks, or that are damaged; all of them if nothing of it is there.

        Reads everything, to hold it against its markers.

        Raises
        ------
        StoreError
            If a condition of this name is there that does something else.
        """
        starts = list(range(0, len(self.samples), self.batch_size))
        if not (self.path / name).exists():
            return starts
        group = _group(self.path / name)
        refuse_other(f"the condition {name!r}", self.path, dict(group.attrs).get("identity", {}), plain(dict(identity)))
        return [start for start in starts if not _intact(group, slice(start, start + self.batch_size))]

    def write(
        self,
        name: str,
        start: int,
        *,
        identity: Mapping[str, Any],
        factors: Mapping[str, Any],
        image: np.ndarray,
        latent: np.ndarray,
        seconds: float,
        reports: Mapping[str, np.ndarray],
    ) -> None:
        """Write one batch of a condition, its markers last."""
        folder = self.path / name
        try:
            if not folder.exists():
                self._create_condition(name, identity, factors, image, latent, tuple(reports))
            # The marker first; and a chunk that can't be read could not be written over either.
            for key in ("marker", "image", "latent_final", "seconds", "finite", *reports):
                _remove(folder / key / "c" / str(start // self.batch_size))
            group, part = _group(folder), slice(start, start + len(image))
            group["image"][part] = image
            group["latent_final"][part] = latent
            group["seconds"][part] = np.full(len(image), seconds)
            group["finite"][part] = _finite(latent)
            for key, values in reports.items():
                group[key][part] = np.asarray(values, dtype=np.float64)
            group["marker"][part] = _marks(image, latent)
        except OSError as error:
            raise StoreError(explain(error, self.path)) from error

    def _create_condition(
        self,
        name: str,
        identity: Mapping[str, Any],
        factors: Mapping[str, Any],
        image: np.ndarray,
        latent: np.ndarray,
        reports: tuple[str, ...],
    ) -> None:
        around = Path(tempfile.mkdtemp(prefix=f".{name[:40]}.creating-", dir=self.path))
        try:
            attributes = {"name": name, "identity": plain(dict(identity)), "factors": plain(dict(factors))}
            group = zarr.create_group(store=str(around / name), attributes=attributes)
            arrays: dict[str, tuple[tuple[int, ...], str, tuple[str, ...], Any]] = {
                "image": (image.shape[1:], "uint8", dims_of("image", image.ndim)[1:], 0),
                "latent_final": (latent.shape[1:], "float32", dims_of("latent_final", latent.ndim)[1:], float("nan")),
                "seconds": ((), "float64", (), float("nan")),
                "finite": ((), "bool", (), False),
                "marker": ((), "uint64", (), 0),
                **{key: ((), "float64", (), float("nan")) for key in reports},
            }
            for key, (shape, dtype, dims, fill) in arrays.items():
                group.create_array(
                    name=key,
                    shape=(len(self.samples), *shape),
                    chunks=(self.batch_size, *shape),
                    dtype=dtype,
                    fill_value=fill,
                    compressors=None,
                    dimension_names=("sample", *dims),
                    config={"write_empty_chunks": True},
                )
            os.replace(around / name, self.path / name)
        finally:
            shutil.rmtree(around, ignore_errors=True)


def open_conditions(path: str | Path, names: Sequence[str] | None = None) -> xr.Dataset:
    """Open the results of conditions lazily.

    Parameters
    ----------
    path : str or Path
        The folder that `run_conditions` wrote.
    names : sequence of str, optional
        Conditions, in this order. Default: all that are there, by name.

    Returns
    -------
    xarray.Dataset
        `image`, `latent_final`, `seconds`, `finite`, `marker` and what the conditions reported, over (condition, sample, …);
        coordinates `prompt`, `seed` and the conditions' factors (None or NaN where a condition has no such factor); `done`:
        whether all samples of the condition are there. What is not there reads as image 0, latent NaN, seconds NaN and
        finite False.

    Raises
    ------
    StoreError
        If there are no conditions, one of `names` is not there, or the folder is something else.
    """
    path = Path(path)
    attributes = read_attributes(path)
    there = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and _NAME.fullmatch(entry.name))
    wanted = there if names is None else list(names)
    if lost := [name for name in wanted if name not in there]:
        raise StoreError(f"{path} has no condition {lost[0]!r}; it has {', '.join(there) or 'none'}.")
    if not wanted:
        raise StoreError(f"{path} holds no condition yet. Run the same command again to fill it.")
    parts, factors, done = [], [], []
    for name in wanted:
        group = _group(path / name)
        try:
            part = xr.open_zarr(str(path / name), consolidated=False, mask_and_scale=False, chunks={})
            marks = part["marker"].values != 0
        except Exception as error:  # whatever a damaged store makes zarr or xarray raise
            raise StoreError(
                f"the condition {name!r} in {path} is damaged ({error}). Run it again: what is damaged is made anew."
            ) from error
        done.append(bool(marks.all()))
        if not marks.all():
            here = xr.DataArray(marks, dims="sample")
            fills = {"image": 0, "finite": False, "marker": 0}
            for key in list(part.data_vars):
                array = part[key].where(here, np.asarray(fills.get(str(key), np.nan), dtype=part[key].dtype))
                part[key] = array.transpose(*part[key].dims)
        parts.append(part)
        factors.append(dict(group.attrs)["factors"])
    data = xr.concat(parts, "condition", join="exact", data_vars="all", coords="minimal", combine_attrs="drop")
    keys = list(dict.fromkeys(key for row in factors for key in row))
    data = data.assign_coords(
        condition=("condition", np.array(wanted, dtype=str)),
        sample=("sample", np.arange(data.sizes["sample"])),
        prompt=("sample", np.array(attributes["prompts"], dtype=str)),
        seed=("sample", np.array(attributes["seeds"], dtype=np.int64)),
        done=("condition", np.array(done)),
        **{key: ("condition", column([row.get(key) for row in factors])) for key in keys},
    )
    data.attrs = {"format": FORMAT, "path": str(path), "settings": attributes["settings"], "factors": keys}
    return data


def intact_images(run: xr.Dataset, name: str) -> np.ndarray:
    """Images of one condition, held against their markers.

    Parameters
    ----------
    run : xarray.Dataset
        From `open_conditions`, or some of its samples.
    name : str
        Of the condition.

    Returns
    -------
    array of uint8, (sample, y, x, rgb) or (sample, video_frame, y, x, rgb)

    Raises
    ------
    StoreError
        If the files were changed since they were written, or can't be read.
    """
    part = run.sel(condition=name)
    try:
        image = np.asarray(part["image"].transpose("sample", ...).values)
        latent = np.asarray(part["latent_final"].transpose("sample", ...).values)
        marks = part["marker"].values
    except Exception as error:  # whatever a damaged chunk makes zarr or dask raise
        raise StoreError(_damaged(run, name, f"can't be read: {error}")) from error
    wrong = np.flatnonzero((marks != 0) & (marks != _marks(image, latent)))
    if wrong.size:
        first = part.isel(sample=int(wrong[0]))
        raise StoreError(
            _damaged(
                run,
                name,
                f"{wrong.size} of {len(marks)} samples are not what was written, the first {str(first['prompt'].values)!r}, "
                f"seed {int(first['seed'])}",
            )
        )
    return image


def _damaged(run: xr.Dataset, name: str, reason: str) -> str:
    return f"the condition {name!r} in {run.attrs.get('path')} is damaged ({reason}). Run it again: what is damaged is made anew."


def column(values: Sequence[Any]) -> np.ndarray:
    """Values of a factor as an array: numbers as float64 (NaN where there is none), all else as text ("" for none)."""
    numbers = [v for v in values if v is not None]
    if numbers and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers):
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    return np.array(["" if v is None else str(v) for v in values], dtype=str)


def read_attributes(path: str | Path) -> dict[str, Any]:
    """Root attributes of a folder of conditions, after checking that it is one.

    Raises
    ------
    StoreError
        If it is none, or of another version.
    """
    attributes = dict(_group(Path(path)).attrs)
    if attributes.get("format") != FORMAT or attributes.get("version") != VERSION:
        raise StoreError(
            f"{path} does not hold conditions of this version (format {attributes.get('format')!r}, version "
            f"{attributes.get('version')!r}; wanted {FORMAT!r}, {VERSION}). It was left as it is; choose another folder."
        )
    return attributes


def check_name(name: str) -> None:
    """Raise StoreError if a condition's name can't be a folder's."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise StoreError(
            f"a condition can't be called {name!r}: letters, digits and . _ + , = - only, the first a letter or digit, at most "
            "120 of them."
        )


def refuse_other(what: str, path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise StoreError naming the settings that differ, old and new value of each."""
    different = [key for key in dict.fromkeys([*wanted, *found]) if found.get(key) != wanted.get(key)]
    if different:
        shown = "; ".join(f"{key}: {_brief(found.get(key))} there, {_brief(wanted.get(key))} now" for key in different)
        raise StoreError(
            f"{what} in {path} was made with other settings ({shown}). Nothing was changed. Choose another --out, or give "
            "the old settings again."
        )


def plain(value: Any) -> Any:
    """The value as JSON gives it back, so that it can be compared with what was stored."""
    return json.loads(json.dumps(value, sort_keys=True, default=str))


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "…"


def _marks(image: np.ndarray, latent: np.ndarray) -> np.ndarray:
    """Markers (sample) of intact samples."""
    return np.array([PRESENT + update(update(0, i), x) for i, x in zip(image, latent, strict=True)], dtype=np.uint64)


def _intact(group: Any, part: slice) -> bool:
    """Whether a batch is there and is what was written."""
    try:
        marks = np.asarray(group["marker"][part])
        if not marks.all():
            return False
        found = {key: np.asarray(array[part]) for key, array in group.arrays()}
    except Exception:  # whatever a damaged chunk makes zarr raise
        return False
    image, latent = found["image"], found["latent_final"]
    return bool((marks == _marks(image, latent)).all() and (found["finite"] == _finite(latent)).all())


def _remove(path: Path) -> None:
    """Remove a chunk: a file where the array has one dimension, else a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _finite(latent: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(latent).all(axis=tuple(range(1, latent.ndim))))


def _group(path: Path) -> Any:
    try:
        return zarr.open_group(str(path), mode="r+")
    except Exception as error:  # a foreign or damaged folder makes zarr raise all kinds of errors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StoreError(
            f"{path} is not a folder of conditions: {reason}. It was left as it is; choose another folder."
        ) from error
