"""Known answers on a real WanPipeline, recorded by the recorder: what its first block writes by place is found, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import workbench
from tests.planted_video import BOUNDARY, FIRST, GRID, MASSIVE, TRUTHS, WAN_SIZE, planted_wan
from tests.tiny_wan import encode_wan, tiny_wan
from workbench.analysis.hierarchy_contrasts import FIRST_INTERIOR, ROWS_COLUMNS
from workbench.errors import AnalysisError
from workbench.record import record

PROMPTS = ["red apple", "dog face", "blue heart", "pizza", "rocket", "green car"]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hierarchy")

    def made(name: str, **options: Any) -> Path:
        out = folder / f"{len(list(folder.iterdir()))}.zarr"
        pipe = planted_wan(TRUTHS[name]) if name in TRUTHS else tiny_wan()
        pipe.vae = None  # nothing here looks at pictures
        chosen: dict[str, Any] = {"prompts": PROMPTS, "seeds": [0], "steps": 2, "tier": "full", "batch_size": 6}
        return record(pipe, out=out, encode=encode_wan, progress=False, **chosen | WAN_SIZE | options)

    return {
        "all three levels": made("all three levels"),
        "none": made("none"),
        "image edges, not boundaries": made("image edges, not boundaries"),
        "statistics": made("random", prompts=PROMPTS[:1], tier="stats"),
        "one frame": made("random", prompts=PROMPTS[:1], num_frames=1),
    }


@pytest.mark.parametrize("name", ["all three levels", "none", "image edges, not boundaries"])
def test_what_a_real_pipeline_was_made_to_write_is_found(stores: dict[str, Path], name: str) -> None:
    for branch in ("cond", "uncond"):
        found: xr.Dataset = workbench.hierarchy(workbench.open(stores[name]), branch=branch)
        assert found.attrs["levels"] == name, found.attrs["verdict_reason"]
        assert set(found.channel.values) == set(MASSIVE)
        assert found.attrs["token_grid"] == list(GRID)
        planted = {"all three levels": (FIRST, BOUNDARY)}.get(name, (0.0, 0.0))
        for contrast, value in zip((FIRST_INTERIOR, ROWS_COLUMNS), planted, strict=True):
            assert float(found.overall.sel(contrast=contrast)) == pytest.approx(value, abs=0.05), contrast
        assert found.attrs["boundary_width_source"] == "default: one row of tokens"


def test_recordings_that_lack_what_it_needs_are_refused(stores: dict[str, Path]) -> None:
    with pytest.raises(AnalysisError, match="holds statistics only"):
        workbench.hierarchy(workbench.open(stores["statistics"]))
    with pytest.raises(ValueError, match="need two frames"):
        workbench.hierarchy(workbench.open(stores["one frame"]))
