"""Which test runs in which process when several share the work (``pytest -n 2 --dist worksteal``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def spread(tests: Sequence[T], long: Sequence[Sequence[T]], workers: int) -> list[T]:
    """Order of ``tests`` in which the groups ``long`` come first, each in another worker if there are enough.

    ``worksteal`` gives worker k the k-th of equal runs of the list, and takes tests from a run's end for workers that
    have nothing left. A long test at a run's start is therefore never the one that all others have to wait for.
    """
    rest = [test for test in tests if not any(test in group for group in long)]
    ordered: list[T] = []
    for worker in range(workers):
        size = (len(tests) - len(ordered)) // (workers - worker)
        first = [test for group in long[worker::workers] for test in group]
        taken = max(0, size - len(first))
        ordered += first + rest[:taken]
        rest = rest[taken:]
    return ordered + rest
