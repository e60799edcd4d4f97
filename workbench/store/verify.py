"""Re-read everything and hold it against the checksums."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from workbench.errors import StoreError
from workbench.store.checksum import checksum, coordinates_checksum
from workbench.store.open import read_attributes
from workbench.store.schema import BY_NAME, coordinates_of, dims_of


@dataclass
class Verdict:
    """What :func:`verify` found. ``ok`` is True only if everything is there and right.

    Attributes
    ----------
    units, complete : int
        Units the recording should hold, and how many are there with a matching checksum.
    samples, finished : int
        The same for samples (latents and image).
    absent : list of str
        Samples with units that were never completed: a resume records them.
    wrong : list of str
        Units whose bytes don't match their checksum, or can't be read.
    wrong_samples : set of int
        The samples they belong to: ``record(…, repair=True)`` records those anew.
    """

    units: int = 0
    complete: int = 0
    samples: int = 0
    finished: int = 0
    absent: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    wrong_samples: set[int] = field(default_factory=set)

    @property
    def ok(self) -> bool:
        """Everything is there, and every checksum matches."""
        return not self.absent and not self.wrong


def verify(path: str | Path, *, progress: Any = None) -> Verdict:
    """Check every unit of a recording against its checksum. Reads every byte; changes nothing.

    Parameters
    ----------
    path : str or Path
    progress : callable, optional
        Called with (samples done, samples in all).

    Raises
    ------
    StoreError
        If it is not a recording at all.
    """
    attributes = read_attributes(path)
    try:
        group: Any = zarr.open_group(str(path), mode="r")
        arrays = {name: group[name] for name in attributes["variables"]}
        coordinates = {name: np.asarray(group[name][:]) for name in coordinates_of(attributes)}
        marks, finished = np.asarray(arrays["unit_checksum"][:]), np.asarray(arrays["sample_checksum"][:])
    except Exception as error:  # anything a damaged marker array makes zarr raise
        raise StoreError(f"{path} is damaged beyond checking: {error}. Record it anew into another folder.") from error
    labels = {name: [str(v) for v in coordinates[name]] for name in ("branch", "layer", "timestep")}
    verdict = Verdict(units=marks.size, samples=len(finished))
    if coordinates_checksum(coordinates) != attributes["coordinates_checksum"]:
        verdict.wrong.append("the coordinates were changed: record anew into another folder")
    for sample in range(len(finished)):
        before = len(verdict.wrong)
        _units(verdict, arrays, marks[sample], sample, labels)
        _sample(verdict, arrays, int(finished[sample]), sample)
        if len(verdict.wrong) > before:
            verdict.wrong_samples.add(sample)
        if progress is not None:
            progress(sample + 1, len(finished))
    return verdict


def _units(
    verdict: Verdict, arrays: dict[str, Any], marks: np.ndarray, sample: int, labels: dict[str, list[str]]
) -> None:
    absent = int((marks == 0).sum())
    if absent:
        verdict.absent.append(f"sample {sample}: {absent} of {marks.size} units were not recorded")
    width = arrays["h_mean_abs"].chunks[3]
    for start in range(0, marks.shape[-1], width):
        values, unreadable = _read(arrays, ("unit", "step"), sample, slice(start, start + width))
        verdict.wrong += unreadable
        for branch, layer, step in zip(*np.nonzero(marks[..., start : start + width]), strict=True):
            if (
                not unreadable
                and checksum(unit_parts(values, branch, layer, step)) == marks[branch, layer, start + step]
            ):
                verdict.complete += 1
            elif not unreadable:
                verdict.wrong.append(
                    f"sample {sample}, branch {labels['branch'][branch]}, layer {labels['layer'][layer]}, "
                    f"timestep {labels['timestep'][start + step]}: bytes and checksum differ"
                )


def _sample(verdict: Verdict, arrays: dict[str, Any], mark: int, sample: int) -> None:
    if mark == 0:
        verdict.absent.append(f"sample {sample}: latents and image were not recorded")
        return
    values, unreadable = _read(arrays, ("sample",), sample)
    if unreadable or checksum(values) != mark:
        verdict.wrong += unreadable or [f"sample {sample}, latents or image: bytes and checksum differ"]
    else:
        verdict.finished += 1


def unit_parts(values: dict[str, np.ndarray], branch: int, layer: int, step: int) -> dict[str, np.ndarray]:
    """The arrays of one unit out of one sample's arrays; the step's own go with the first layer."""
    parts = {}
    for name, array in values.items():
        if BY_NAME[name].part == "unit":
            parts[name] = array[branch, layer, step]
        elif layer == 0:
            parts[name] = array[branch, step]
    return parts


def _read(
    arrays: dict[str, Any], parts: tuple[str, ...], sample: int, steps: slice = slice(None)
) -> tuple[dict[str, np.ndarray], list[str]]:
    values, unreadable = {}, []
    for name, array in arrays.items():
        variable = BY_NAME[name]
        if variable.part in parts:
            where = tuple(steps if dim == "timestep" else slice(None) for dim in dims_of(name, array.ndim)[1:])
            try:
                values[name] = np.asarray(array[(sample, *where)])
            except Exception as error:  # a truncated or foreign chunk file makes codecs raise all kinds of errors
                unreadable.append(f"sample {sample}, {name}: can't be read ({type(error).__name__}: {error})")
    return values, unreadable
