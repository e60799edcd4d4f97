"""The table of numbers: each image its own, content against the named baseline, nothing for what isn't there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from workbench.errors import StoreError, WorkbenchError
from workbench.sampling.conditions import Condition, open_conditions, run_conditions
from workbench.sampling.measured import measured
from workbench.sampling.measures import edge_energy, low_pass_similarity

CALL: dict[str, Any] = {"prompts": ["red apple", "dog face"], "seeds": [3], "steps": 2, "progress": False}


@contextlib.contextmanager
def poisoned(pipe: Any) -> Iterator[None]:
    def poison(module: Any, args: Any, out: Any) -> Any:
        out[0][1] = float("nan")
        return out

    handle = pipe.transformer.register_forward_hook(poison)
    try:
        yield
    finally:
        handle.remove()


@pytest.fixture(scope="module")
def run(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    chosen = [
        Condition("plain", {"scale": 1.0}, 1.0),
        Condition("cfg", {"scale": 3.0}, 3.0),
        Condition("bad", {"scale": 3.0}, 3.0, steer=poisoned),
    ]
    return run_conditions(pipe, chosen, out=tmp_path_factory.mktemp("m") / "run", **CALL)


def test_numbers_are_those_of_the_images(run: xr.Dataset) -> None:
    table = measured(run, baseline={"plain": "plain", "cfg": "plain", "bad": "cfg"}, judge=None, reference=None)
    for name in ("plain", "cfg"):
        for i in range(2):
            image = run["image"].sel(condition=name).values[i]
            one = table["value"].sel(condition=name).isel(sample=i)
            assert float(one.sel(measure="edge_energy")) == edge_energy(image)
            plain = run["image"].sel(condition="plain").values[i]
            assert float(one.sel(measure="low_pass_similarity")) == low_pass_similarity(image, plain)
    assert table["baseline"].values.tolist() == ["plain", "plain", "cfg"]
    assert table["kind"].sel(measure="edge_energy") == "detail"
    assert table["seconds"].dims == ("condition", "sample")
    assert not {"image", "latent_final", "marker"} & set(table.data_vars)


def test_what_is_not_finite_has_no_numbers_and_is_named(run: xr.Dataset) -> None:
    table = measured(run, baseline="plain", judge=None, reference=None)
    assert np.isnan(table["value"].sel(condition="bad").values[1]).all()
    assert np.isfinite(table["value"].sel(condition="bad").values[0]).all()
    assert "bad: 'dog face', seed 3 (not finite)" in table.attrs["left_out"]
    assert any(line.startswith("semantic log-odds: can't be had") for line in table.attrs["left_out"])
    against = measured(run, baseline="bad", judge=None, reference=None)["value"].sel(measure="low_pass_similarity")
    assert np.isnan(against.sel(condition="plain").values).tolist() == [False, True], "compared with no image"


def test_conditions_that_are_not_complete_are_named(pipe: Any, tmp_path: Path) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    many = {**CALL, "batch_size": 1}
    run_conditions(pipe, [Condition("plain", {}, 1.0)], out=tmp_path / "run", **many)
    calls: list[int] = []

    def later(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            stop()

    handle = pipe.transformer.register_forward_pre_hook(later)
    with pytest.raises(KeyboardInterrupt):
        run_conditions(pipe, [Condition("cfg", {}, 3.0)], out=tmp_path / "run", **many)
    handle.remove()
    part = open_conditions(tmp_path / "run")
    table = measured(part, baseline="plain", judge=None, reference=None)
    assert table["condition"].values.tolist() == ["plain"]
    assert table.attrs["left_out"][0] == "cfg: not complete"
    with pytest.raises(WorkbenchError, match="the baseline 'cfg' is not among the complete conditions plain"):
        measured(part, baseline="cfg", judge=None, reference=None)


def test_damaged_images_are_not_measured(pipe: Any, run: xr.Dataset, tmp_path: Path) -> None:
    shutil.copytree(run.attrs["path"], tmp_path / "run")
    (file,) = (f for f in (tmp_path / "run" / "cfg" / "image" / "c").rglob("*") if f.is_file())
    written = file.read_bytes()
    file.write_bytes(bytes(40) + written[40:])
    part = open_conditions(tmp_path / "run")
    with pytest.raises(StoreError, match="the condition 'cfg' in .* is damaged"):
        measured(part, baseline="plain", judge=None, reference=None)
    file.write_bytes(written[:40])
    with pytest.raises(StoreError, match="the condition 'cfg' in .* is damaged"):
        measured(part, baseline="plain", judge=None, reference=None)
