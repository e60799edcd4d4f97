"""The long tests start first and apart from each other, and no test is lost on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.workers import spread


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [3, 10, 11])
def test_every_test_is_still_there_once(workers: int, count: int) -> None:
    tests = list(range(count))
    assert sorted(spread(tests, [[2], [0, 1]], workers)) == tests


def test_the_long_groups_start_the_runs_of_two_workers() -> None:
    tests = list("abcdeDxyzNM")  # worksteal: five for the first worker, six for the second
    assert "".join(spread(tests, [["D"], ["N", "M"]], 2)) == "DabcdNMexyz"


def test_one_worker_takes_all_long_groups_first() -> None:
    assert "".join(spread("abDcN", [["D"], ["N"]], 1)) == "DNabc"


def test_tests_can_interrupt_their_children_though_they_were_started_in_the_background() -> None:
    """A shell starts what goes into the background with SIGINT ignored, and children inherit that."""
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); import tests.conftest; " + (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', "
        "'import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)'])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert said.stdout.strip() == "True"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
