"""What was tried out goes into a report of the same model only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.analysis.test_sweep import GOOD, made
from workbench.analysis.tables import write_table
from workbench.errors import AnalysisError, WorkbenchError
from workbench.report.tried import tried

MODEL: dict[str, Any] = {"transformer_class": "Some2DModel", "config_hash": "c0", "weight_hash": "w0"}
RECORDING = xr.Dataset(attrs={"model": MODEL})


def table(model: Any) -> xr.Dataset:
    data = made({"w1": GOOD}, prompts=12)
    return data.assign_attrs(settings=json.dumps({"steps": 20, "model": model}))


@pytest.mark.parametrize(("key", "kind"), [("disrupted", "disruption"), ("swept", "sweep"), ("baselines", "baselines")])
def test_tables_of_another_model_are_refused(tmp_path: Path, key: str, kind: Any) -> None:
    other = table(MODEL | {"weight_hash": "w1"})
    write_table(other, tmp_path, kind)
    for given in (other, tmp_path):
        with pytest.raises(
            WorkbenchError, match=f"the table of {kind} is of another model .*w1.* than the recording .*w0"
        ):
            tried(RECORDING, xr.Dataset(), **{key: given})
    with pytest.raises(WorkbenchError, match=f"the table of {kind} does not say which model"):
        tried(RECORDING, xr.Dataset(), **{key: table({})})


def test_experiments_of_another_model_are_refused() -> None:
    other = xr.Dataset(attrs={"model": MODEL | {"config_hash": "c1"}, "experiment": "timestep-swap"})
    with pytest.raises(WorkbenchError, match="the timestep-swap experiment is of another model .*c1"):
        tried(RECORDING, xr.Dataset(), experiments=[other])


def test_a_table_of_the_same_model_is_analysed_and_one_of_another_kind_is_not(tmp_path: Path) -> None:
    write_table(table(MODEL), tmp_path, "sweep")
    found = tried(RECORDING, xr.Dataset(), swept=tmp_path)["sweep"]
    assert np.isfinite(found["gain"].sel(condition="w1"))
    with pytest.raises(AnalysisError, match="has format 'dit-workbench/sweep'"):
        tried(RECORDING, xr.Dataset(), baselines=tmp_path)
