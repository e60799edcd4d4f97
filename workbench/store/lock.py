"""One writing process a folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from workbench.errors import StoreError, WorkbenchError


@contextlib.contextmanager
def locked(path: Path, doing: str = "writing to", error: type[WorkbenchError] = StoreError) -> Iterator[None]:
    """Hold a Zarr folder for one writing process; the lock goes with the process, however it ends.

    Parameters
    ----------
    path : Path
        With a ``zarr.json``.
    doing : str
        What the other process is at, for the message.
    error : type of WorkbenchError
        What to raise if another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows; there two writers at once are the user's to avoid
        yield
        return
    # On the metadata file itself: nothing has to be added to the store, and it is never rewritten.
    with open(path / "zarr.json", "rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            raise error(f"Another process is {doing} {path} right now; wait for it to end.") from held
        yield
