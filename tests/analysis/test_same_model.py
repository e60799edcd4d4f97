"""One model or two: whatever carries a fingerprint is compared in the same words."""

from __future__ import annotations

import json
from typing import Any

import pytest
import xarray as xr

from workbench.analysis.same_model import model_of, same_model
from workbench.errors import SpecError, WorkbenchError

MODEL: dict[str, Any] = {"transformer_class": "Some2DModel", "config_hash": "c0", "weight_hash": "w0"}


def of(**attrs: Any) -> xr.Dataset:
    return xr.Dataset(attrs=attrs)


@pytest.mark.parametrize(
    "thing",
    [
        {**MODEL, "repo": "a/b", "revision": "main"},
        {"method": "detail_guidance", "model": {**MODEL, "family": "sd3"}},
        of(model=MODEL, settings={"model": {**MODEL, "weight_hash": "of no one"}}),
        of(settings={"model": MODEL, "steps": 3}),
        of(settings=json.dumps({"model": MODEL}), model_name="mini-image"),
        of(recording_model=json.dumps(MODEL)),
    ],
)
def test_everything_says_its_model(thing: Any) -> None:
    assert model_of(thing) == MODEL
    same_model(thing, MODEL, "this")


@pytest.mark.parametrize("key", sorted(MODEL))
def test_each_part_of_the_fingerprint_counts(key: str) -> None:
    with pytest.raises(
        SpecError, match=r"the sweep is of another model \(.*other.*\) than the recording \(Some2DModel"
    ):
        same_model(of(model={**MODEL, key: "other"}), MODEL, "the sweep", error=SpecError)


@pytest.mark.parametrize("thing", [of(), {}, None, of(settings="{"), of(settings="[1]"), of(model="mini-image")])
def test_what_does_not_say_its_model_is_no_one_elses(thing: Any) -> None:
    assert model_of(thing) is None
    with pytest.raises(WorkbenchError, match="the table does not say which model it is of"):
        same_model(thing, MODEL, "the table")
    with pytest.raises(WorkbenchError, match="the pipeline does not say which model"):
        same_model(MODEL, thing, "the table", "the pipeline")
