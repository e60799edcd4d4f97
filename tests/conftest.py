"""Shared parts: real tiny pipelines and recordings of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workers import spread

# Two barrier-spinning OpenMP threads are slower than one on a shared machine, and one thread makes timings even.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A shell starts what goes into the background with SIGINT ignored; tests that press Ctrl-C would then wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = ("test_demo.py", "test_notebooks.py")
"""Files whose tests take minutes; with several workers they start first, each in another one."""


@pytest.hookimpl(trylast=True)  # after what -m and -k leave out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests for the workers of pytest-xdist; one process keeps pytest's order."""
    if workers := getattr(config, "workerinput", {}).get("workercount"):
        items[:] = spread(items, [[item for item in items if item.path.name == name] for name in LONG], workers)


@pytest.fixture(scope="session")
def tiny() -> Any:
    from tests.tiny import tiny_pipeline

    return tiny_pipeline()


@pytest.fixture(scope="session")
def make_recording(tiny: Any) -> Callable[..., Path]:
    """Record the tiny pipeline; keyword arguments override the defaults below."""
    from tests.tiny import encode
    from workbench.record import record

    def make(out: Path, **options: Any) -> Path:
        chosen = {
            "model": tiny,
            "prompts": ["red apple", "dog"],
            "seeds": [0, 1],
            "steps": 3,
            "guidance_scale": 3.0,
            "batch_size": 2,
            "tier": "full",
            "encode": encode,
            "progress": False,
        } | options
        return record(chosen.pop("model"), out=out, **chosen)

    return make


@pytest.fixture(scope="session")
def full_store(make_recording: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete recording of tier full. Read only: copy it before changing it."""
    return make_recording(tmp_path_factory.mktemp("stores") / "full.zarr")
