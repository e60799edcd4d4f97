"""The whole path on the embedded model, as a newcomer runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import workbench
from workbench.analysis.locate import located_channels
from workbench.cli.demo import demo


@pytest.mark.slow
@pytest.mark.model
def test_the_demo_goes_from_recording_to_report(tmp_path: Path) -> None:
    page = demo(tmp_path / "stores", tmp_path / "reports")[0]
    store = tmp_path / "stores" / "demo" / "recording.zarr"
    assert workbench.verify(store).ok

    found = workbench.locate(workbench.open(store))
    assert found.attrs["verdict"] == "supported"
    channels = located_channels(found)
    # The bar the embedded model was trained to: one channel at 8 times the median in half of the blocks.
    blocks = found.isel(layer=slice(1, None))
    assert max(int((blocks.ratio_to_median.sel(channel=c) >= 8).sum()) for c in channels) >= 4

    spec = workbench.load_spec(page.parent / "spec.json")
    assert set(spec.channels) <= set(channels)
    text = page.read_text()
    for heading in ("Findings", "Which channels", "Along the trajectory", "Detail Guidance", "Provenance"):
        assert heading in text
    numbers = json.loads((page.parent / "numbers.json").read_text())
    assert numbers["modulation"]["verdict"] == "undecided"  # the observed part decides nothing
    assert numbers["causal"]["verdict"] == "supported"
    assert (page.parent / "comparison" / "differences.csv").is_file()
