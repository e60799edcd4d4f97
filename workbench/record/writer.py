"""One thread that writes: whole chunks only, data first, the marker last; its error is raised where the work is given."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from workbench.errors import RecordingError, WorkbenchError
from workbench.record.plan import Plan
from workbench.store.checksum import checksum, update
from workbench.store.create import explain
from workbench.store.schema import BY_NAME
from workbench.store.verify import unit_parts

#: Blocks that may wait; more would only hide in memory that the disk is too slow.
_WAITING = 2
_STOP = object()


class Writer:
    """Writes blocks of units, planes of hidden states and finished samples, in the order they are given.

    Parameters
    ----------
    path : Path
        An existing store of this plan.
    plan : Plan
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path, self.plan = path, plan
        group = zarr.open_group(str(path), mode="r+")
        self.arrays: dict[str, Any] = {name: group[name] for name in plan.variables}
        self.units = np.asarray(self.arrays["unit_checksum"][:])
        self.samples = np.asarray(self.arrays["sample_checksum"][:])
        self.plane_crc: dict[tuple[int, int, int, int], int] = {}
        self.error: BaseException | None = None
        self.jobs: queue.Queue[Any] = queue.Queue(maxsize=_WAITING)
        self.thread = threading.Thread(target=self._run, name="workbench-writer", daemon=True)
        self.thread.start()

    # Given by the recording thread ------------------------------------------------------------------------------

    def block(self, samples: Sequence[int | None], start: int, values: Mapping[str, np.ndarray]) -> None:
        """Write units.

        Parameters
        ----------
        samples : sequence of int or None
            Sample of each row; None for one that is complete already.
        start : int
            First recorded timestep of the block.
        values : mapping
            Variable → array (rows, *dims after sample), timesteps from ``start``. Handed over: don't touch it again.
        """
        self._give(self._block, list(samples), start, dict(values))

    def plane(self, sample: int, branch: int, layer: int, step: int, h_NC: np.ndarray) -> None:
        """Write one visit's hidden state (N, C), in its stored dtype. Its unit is marked with its block."""
        self._give(self._plane, (sample, branch, layer, step), h_NC)

    def finish(self, samples: Sequence[int | None], values: Mapping[str, np.ndarray]) -> None:
        """Write latents and images, a row a sample, and mark the samples as finished; rows of None are left out."""
        self._give(self._finish, list(samples), dict(values))

    def close(self) -> None:
        """Wait until everything is written; raise what went wrong."""
        if self.thread.is_alive():
            self.jobs.put(_STOP)
            self.thread.join()
        self._raise()

    def _give(self, job: Any, *args: Any) -> None:
        self._raise()
        self.jobs.put((job, args))

    def _raise(self) -> None:
        if self.error is not None:
            error = self.error  # kept: nothing may be written after it
            if isinstance(error, OSError):
                raise RecordingError(explain(error, self.path)) from error
            if isinstance(error, WorkbenchError):
                raise error
            raise RecordingError(f"Writing {self.path} failed: {type(error).__name__}: {error}") from error

    # Done by the writer thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while (item := self.jobs.get()) is not _STOP:
            if self.error is None:
                job, args = item
                try:
                    job(*args)
                except BaseException as error:  # handed to the recording thread, whatever it is
                    self.error = error

    def _block(self, samples: list[int | None], start: int, values: dict[str, np.ndarray]) -> None:
        steps = slice(start, start + values["h_mean_abs"].shape[3])
        # Neighbours go in one call a variable: what a call costs is more than what a chunk costs.
        for rows, there in runs(samples):
            mine = {name: array[rows] for name, array in values.items()}
            self._unmark(self.units, "unit_checksum", (there, slice(None), slice(None), steps))
            self._refuse_nonfinite(there.start, start, mine["h_norm"])
            for name, array in mine.items():
                where = tuple(steps if d == "timestep" else slice(None) for d in BY_NAME[name].dims[1:])
                self.arrays[name][(there, *where)] = array
            marks = np.zeros(mine["h_mean_abs"].shape[:4], dtype=np.uint64)
            for row, branch, layer, step in np.ndindex(*marks.shape):
                parts = unit_parts({name: array[row] for name, array in mine.items()}, branch, layer, step)
                marks[row, branch, layer, step] = checksum(
                    parts, self._plane_crc(there.start + row, branch, layer, start + step)
                )
            self.arrays["unit_checksum"][there, :, :, steps] = marks

    def _unmark(self, marks: np.ndarray, name: str, where: Any) -> None:
        """Take away markers of an earlier run before their data are written anew."""
        if marks[where].any():
            self.arrays[name][where] = 0
            marks[where] = 0

    def _plane_crc(self, *where: int) -> int:
        """CRC of the hidden state that was written on its own, with which the unit's goes on; 0 if it is in the block."""
        return self.plane_crc.pop(where) if self.plan.planes else 0  # type: ignore[arg-type]

    def _plane(self, where: tuple[int, int, int, int], h_NC: np.ndarray) -> None:
        sample, branch, layer, step = where
        self._unmark(self.units, "unit_checksum", (slice(sample, sample + 1), branch, layer, step))
        self.arrays["hidden"][where] = h_NC
        self.plane_crc[where] = update(0, h_NC)

    def _finish(self, samples: list[int | None], values: dict[str, np.ndarray]) -> None:
        for rows, there in runs(samples):
            self._unmark(self.samples, "sample_checksum", there)
            for name, array in values.items():
                self.arrays[name][there] = array[rows]
            marks = [
                checksum({name: array[row] for name, array in values.items()}) for row in range(rows.start, rows.stop)
            ]
            self.arrays["sample_checksum"][there] = np.array(marks, dtype=np.uint64)

    def _refuse_nonfinite(self, first: int, start: int, norms: np.ndarray) -> None:
        """``norms`` (rows, B, L, T, N): the norm of a token is not finite as soon as one of its channels isn't."""
        bad = ~np.isfinite(norms).all(axis=-1)
        if bad.any():
            step, layer, branch, row = (int(i) for i in np.argwhere(bad.transpose(3, 2, 1, 0))[0])  # the first in time
            half = self.plan.hidden_dtype == "float16"
            hint = " In float16 this is often an overflow: try --dtype bfloat16, into another --out." if half else ""
            raise RecordingError(
                f"The hidden state has NaN or infinite values: sample {first + row}, branch {self.plan.branches[branch]}, "
                f"layer {self.plan.layers[layer]}, step {self.plan.steps[start + step]} ({int(bad.sum())} visits in this "
                f"block). Such a state can't be analysed; nothing of it was marked as recorded.{hint}"
            )


def runs(samples: Sequence[int | None]) -> list[tuple[slice, slice]]:
    """Stretches of rows whose samples are neighbours: (rows, samples), rows of None left out."""
    found: list[tuple[slice, slice]] = []
    for row, sample in enumerate(samples):
        if sample is None:
            continue
        if found and found[-1][0].stop == row and found[-1][1].stop == sample:
            rows, there = found.pop()
            found.append((slice(rows.start, row + 1), slice(there.start, sample + 1)))
        else:
            found.append((slice(row, row + 1), slice(sample, sample + 1)))
    return found
