from typing import Any

import pytest

from tests.steering.helpers import make_spec
from workbench.steering.spec import DetailGuidanceSpec


@pytest.fixture(scope="module")
def pipe() -> Any:
    from tests.planted import planted_pipeline

    return planted_pipeline("constant")


@pytest.fixture(scope="module")
def spec(pipe: Any) -> DetailGuidanceSpec:
    return make_spec(pipe, recommended={"guidance_scale": 3.0, "steps": 3})
