import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/planted.py

from steering_helpers import make_spec

from workbench.steering.spec import DetailGuidanceSpec


@pytest.fixture
def pipe():
    from planted import planted_pipeline

    return planted_pipeline("constant")


@pytest.fixture
def spec(pipe) -> DetailGuidanceSpec:
    return make_spec(pipe)
