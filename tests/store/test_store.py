"""Opening and verifying: what is damaged is named, what is not there reads as absent."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import workbench
from workbench.errors import StoreError
from workbench.store.checksum import checksum
from workbench.store.schema import BY_NAME, COORDINATES, PRESENT, VARIABLES, bf16_to_float32


@pytest.fixture
def copy(full_store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(full_store, tmp_path / "copy.zarr"))


def chunk(store: Path, name: str, sample: int) -> Path:
    """The file with a sample's values of a variable."""
    return next(iter(sorted((store / name).glob(f"c.{sample}.*"))))


def test_plain_xarray_opens_a_recording_with_all_coordinates(full_store: Path) -> None:
    plain, ours = xr.open_zarr(full_store, consolidated=False), workbench.open(full_store)
    assert set(plain.coords) == set(ours.coords) == set(COORDINATES)
    for name in ours.data_vars:
        assert plain[name].dims == BY_NAME[str(name)].dims
        assert np.array_equal(plain[name], ours[name], equal_nan=plain[name].dtype.kind == "f")


def test_opening_a_recording_needs_neither_torch_nor_diffusers(full_store: Path) -> None:
    code = (
        "import sys, workbench; ds = workbench.open(sys.argv[1]); ds.h_mean_abs.load();"
        "assert not {'torch', 'diffusers', 'nnsight', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(full_store)], check=True, cwd=Path(__file__).parents[2])


#: `token_timestep` is not in this recording; see tests/record/test_video.py.
HERE = [v.name for v in VARIABLES if v.part != "marker" and v.name != "token_timestep"]


@pytest.mark.parametrize("name", HERE)
def test_a_flipped_bit_in_any_variable_is_found_and_named(copy: Path, name: str) -> None:
    file = chunk(copy, name, 2)
    content = bytearray(file.read_bytes())
    # In `modulation` the first numbers belong to layer `input`; any byte will do.
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)
    verdict = workbench.verify(copy)
    assert len(verdict.wrong) == 1
    assert "sample 2" in verdict.wrong[0]
    assert not verdict.ok


@pytest.mark.parametrize("name", ["hidden", "h_norm", "image"])
def test_a_truncated_file_is_found(copy: Path, name: str) -> None:
    file = chunk(copy, name, 1)
    file.write_bytes(file.read_bytes()[:-7])
    verdict = workbench.verify(copy)
    assert verdict.wrong
    assert all("sample 1" in line and name in line for line in verdict.wrong)


def test_a_file_that_a_killed_write_left_behind_damages_nothing(copy: Path) -> None:
    (copy / "h_std" / "c.1.0.0.0.0.0123456789abcdef.partial").write_bytes(b"half")
    assert workbench.open(copy).sizes["sample"] == 4
    assert workbench.verify(copy).ok


def test_a_missing_file_is_found(copy: Path) -> None:
    chunk(copy, "h_std", 0).unlink()
    verdict = workbench.verify(copy)
    assert len(verdict.wrong) == verdict.units // verdict.samples
    assert "sample 0" in verdict.wrong[0]


def test_units_without_a_marker_read_as_absent_although_bytes_are_there(copy: Path) -> None:
    zarr.open_group(str(copy))["unit_checksum"][1, 0, 2, 1] = 0
    recording = workbench.open(copy).load()
    assert np.isnan(recording.hidden[1, 0, 2, 1]).all()
    assert (recording.h_top_channel[1, 0, 2, 1] == -1).all()
    assert int(np.isnan(recording.h_mean_abs).any("channel").sum()) == 1
    assert workbench.verify(copy).absent == ["sample 1: 1 of 24 units were not recorded"]


def test_changed_or_missing_coordinates_are_found(copy: Path) -> None:
    zarr.open_group(str(copy))["seed"][:] = 9
    assert workbench.verify(copy).wrong == ["the coordinates were changed: record anew into another folder"]
    with pytest.raises(StoreError, match="coordinates were changed"):
        workbench.open(copy)
    shutil.rmtree(copy / "sigma")
    for act in (workbench.open, workbench.verify):
        with pytest.raises(StoreError, match="damaged"):
            act(copy)


def test_latents_of_an_unfinished_sample_read_as_absent(copy: Path) -> None:
    zarr.open_group(str(copy))["sample_checksum"][3] = 0
    recording = workbench.open(copy)
    assert np.isnan(recording.latent_final[3]).all()
    assert not np.isnan(recording.latent_final[:3]).any()


def test_a_truncated_file_is_refused_when_opening(copy: Path) -> None:
    file = chunk(copy, "h_norm", 1)
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(StoreError, match=r"h_norm has 1 truncated files \(c.1.0.0.0.0\)"):
        workbench.open(copy)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: shutil.rmtree(p), "There is no recording"),
        (lambda p: (p / "zarr.json").write_text("{"), "not a recording"),
        (lambda p: (p / "zarr.json").unlink(), "not a recording"),
        (lambda p: shutil.rmtree(p / "h_mean_abs"), "damaged"),
        (lambda p: attributes(p, format="other/thing"), "not a recording.*'other/thing'"),
        (lambda p: attributes(p, schema_version=99), "schema version 99.*reads version 1"),
        (lambda p: attributes(p, settings=None), "attributes settings are missing"),
    ],
)
def test_a_store_that_is_missing_damaged_foreign_or_newer_gets_a_clear_error(copy: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    damage(copy)
    with pytest.raises(StoreError, match=message):
        workbench.open(copy)


def attributes(path: Path, **changes: object) -> None:
    file = path / "zarr.json"
    meta = json.loads(file.read_text())
    for name, value in changes.items():
        meta["attributes"][name] = value
        if value is None:
            del meta["attributes"][name]
    file.write_text(json.dumps(meta))


def test_the_schema_document_lists_what_the_schema_has() -> None:
    text = (Path(__file__).parents[2] / "docs" / "schema.md").read_text()
    for name in [*BY_NAME, *COORDINATES]:
        assert f"`{name}`" in text or f"`{name}," in text or f", {name}`" in text or f", `{name}`" in text, name


@given(st.integers(0, 0xFFFF))
def test_bfloat16_bits_decode_exactly(bits: int) -> None:
    import torch

    expected = torch.tensor([bits], dtype=torch.uint16).view(torch.bfloat16).float().numpy()
    assert np.array_equal(bf16_to_float32(np.array([bits], dtype=np.uint16)), expected, equal_nan=True)


@given(arrays(np.float32, (2, 3)), st.integers(0, 5), st.integers(0, 31))
def test_every_bit_of_a_unit_counts_in_its_checksum(values: np.ndarray, where: int, bit: int) -> None:
    changed = values.copy()
    changed.view(np.uint32).reshape(-1)[where] ^= np.uint32(1 << bit)
    assert checksum({"h_mean": values}) != checksum({"h_mean": changed})
    assert checksum({"h_mean": values}) >= PRESENT
