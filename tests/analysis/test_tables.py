"""Tables on disk: read back as they were, never half, and only as what they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from workbench.analysis import tables
from workbench.analysis.tables import TABLE_FOLDER, open_table, write_table
from workbench.errors import AnalysisError, StoreError


def made(number: float = 1.0) -> xr.Dataset:
    return xr.Dataset(
        {"value": (("condition", "sample"), np.full((2, 3), number)), "note": ("sample", np.array(["a", "", "ccc"]))},
        coords={"condition": np.array(["plain", "cfg+dg"])},
        attrs={"settings": "{}", "left_out": ["a", "b"]},
    )


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    written = write_table(made(), tmp_path / "run", "sweep")
    for path in (tmp_path / "run", str(tmp_path / "run"), tmp_path / "run" / TABLE_FOLDER):
        xr.testing.assert_identical(open_table(path, "sweep"), written)
    xr.testing.assert_identical(open_table(tmp_path / "run"), made().assign_attrs(format="dit-workbench/sweep"))
    assert open_table(tmp_path / "run")["note"].dtype.kind == "U"


def test_a_table_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    table = write_table(made(), tmp_path, "baselines")
    for source in (tmp_path, table):
        with pytest.raises(AnalysisError, match="has format 'dit-workbench/baselines', .* 'dit-workbench/sweep'"):
            open_table(source, "sweep")
    assert open_table(made(), "sweep").attrs == made().attrs, "a table made by hand need not say what it is"


@pytest.mark.parametrize(("kind", "command"), [("disruption", "disruption"), ("stas", "stas-trial")])
def test_a_table_that_is_not_there_or_old_can_be_made_again(tmp_path: Path, kind: Any, command: str) -> None:
    with pytest.raises(AnalysisError, match=f"has no table of measures. Run the same `workbench {command}` again"):
        open_table(tmp_path, kind)
    made().assign_coords(condition=[0, 1]).drop_vars("note").to_zarr(tmp_path / TABLE_FOLDER, consolidated=False)
    with pytest.raises(AnalysisError, match=f"is of an older version. Run the same `workbench {command}` again"):
        open_table(tmp_path, kind)


def test_the_older_table_stays_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = write_table(made(1.0), tmp_path, "sweep")
    real, moves = os.replace, []

    def full(*paths: Any) -> None:
        moves.append(paths)
        if len(moves) == 2:  # the older one is out of its place, and the new one not in it
            raise OSError(28, "No space left on device")
        real(*paths)

    monkeypatch.setattr(tables.os, "replace", full)
    with pytest.raises(StoreError):
        write_table(made(2.0), tmp_path, "sweep")
    xr.testing.assert_identical(open_table(tmp_path, "sweep"), older)
    assert [p.name for p in tmp_path.iterdir()] == [TABLE_FOLDER], "nothing is left lying about"


def test_a_newer_table_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    write_table(made(1.0), tmp_path, "sweep")
    newer = write_table(made(2.0).isel(condition=[0]), tmp_path, "sweep")
    xr.testing.assert_identical(open_table(tmp_path), newer)


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    write_table(made(), tmp_path, "sweep")
    code = f"import sys; from workbench.analysis.tables import open_table; open_table({str(tmp_path)!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
