"""Kills, interrupts, full disks, bad numbers: nothing is lost, nothing is filled silently, and a resume is exact."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workbench
from tests import children
from tests.tiny import encode, tiny_pipeline
from workbench.errors import RecordingError, StoreError
from workbench.record import plan, record, run
from workbench.record.writer import Writer


def record_whole(out: Path) -> None:
    """What `full_store` holds, recorded by a child."""
    torch.set_num_threads(1)
    record(tiny_pipeline(), prompts=["red apple", "dog"], seeds=[0, 1], steps=3, guidance_scale=3.0, batch_size=2,
           tier="full", encode=encode, progress=False, out=out)  # fmt: skip


def same(one: Path, other: Path) -> bool:
    a, b = workbench.open(one), workbench.open(other)
    return all(np.array_equal(a[n], b[n], equal_nan=a[n].dtype.kind == "f") for n in b.data_vars)


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Run ``act`` in the writer thread before its ``count``-th job of writing data."""
    done = {"jobs": 0}
    for name in ("_block", "_finish"):
        real = getattr(Writer, name)

        def counting(self: Writer, *args: Any, real: Any = real) -> None:
            done["jobs"] += 1
            if done["jobs"] == count:
                act()
            real(self, *args)

        monkeypatch.setattr(Writer, name, counting)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.08])
def test_after_kill_9_open_and_verify_tell_the_truth_and_a_resume_is_bit_identical(
    tmp_path: Path, full_store: Path, make_recording: Callable[..., Path], delay: float
) -> None:
    out = tmp_path / "killed.zarr"
    child = children.start(record_whole, out)
    while not any(out.glob("h_mean_abs/c.*")) and child.is_alive():
        time.sleep(0.001)
    time.sleep(delay)
    child.kill()
    child.join()
    assert any(out.glob("h_mean_abs/c.*")), "it failed before it could be killed"
    torn, whole = workbench.open(out).load(), workbench.open(full_store)
    marks = torn.unit_checksum.values != 0
    for name in ("hidden", "h_mean_abs", "h_norm"):
        assert np.isnan(torn[name].values[~marks]).all()
        assert np.array_equal(torn[name].values[marks], whole[name].values[marks])
    verdict = workbench.verify(out)
    assert verdict.complete == marks.sum()
    assert verdict.wrong == []
    assert verdict.ok == (marks.all() and bool((torn.sample_checksum != 0).all()))
    make_recording(out)
    assert workbench.verify(out).ok
    assert same(out, full_store)


def die_between_data_and_marker(out: Path) -> None:
    """Record as `record_whole`, block by block, and die in the third."""
    plan.BLOCK_BYTES = 1  # every step is a block of its own
    state = {"blocks": 0}
    refuse = Writer._refuse_nonfinite

    def die(self: Writer, *args: Any) -> None:
        state["blocks"] += 1
        refuse(self, *args)
        if state["blocks"] == 3:  # after one block's markers were taken away or never set, its data half written
            self.arrays["h_mean_abs"][0:2, :, :, 2:3] = 1.0
            os.kill(os.getpid(), signal.SIGKILL)

    Writer._refuse_nonfinite = die  # type: ignore[method-assign]
    record_whole(out)


@pytest.mark.slow
def test_killed_between_data_and_marker_the_data_read_as_absent(
    tmp_path: Path, full_store: Path, make_recording: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "torn.zarr"
    child = children.start(die_between_data_and_marker, out)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    marks = workbench.open(out).unit_checksum.values != 0
    assert 0 < marks.sum() < marks.size
    assert float(workbench.open(out, complete_only=False).h_mean_abs[0, 0, 0, 2, 0]) == 1.0
    assert np.isnan(workbench.open(out).h_mean_abs.values[~marks]).all()
    assert workbench.verify(out).wrong == []
    monkeypatch.setattr("workbench.record.plan.BLOCK_BYTES", 1)
    make_recording(out)
    assert workbench.verify(out).ok
    assert same(out, full_store)


def test_a_damaged_sample_is_recorded_anew_on_request(
    tmp_path: Path, make_recording: Callable[..., Path], full_store: Path
) -> None:
    out = Path(shutil.copytree(full_store, tmp_path / "s.zarr"))
    flipped, torn = out / "h_std" / "c.1.0.0.0.0", out / "hidden" / "c.3.0.0.0.0.0"
    flipped.write_bytes(bytes([flipped.read_bytes()[0] ^ 1]) + flipped.read_bytes()[1:])
    torn.write_bytes(torn.read_bytes()[:-8])
    with pytest.raises(StoreError, match="hidden has 1 truncated file.*--repair"):
        make_recording(out)
    assert workbench.verify(out).wrong_samples == {1, 3}
    make_recording(out, repair=True)
    assert workbench.verify(out).ok
    assert same(out, full_store)


def test_a_resume_clears_away_what_a_killed_write_left_behind(
    tmp_path: Path, make_recording: Callable[..., Path], full_store: Path
) -> None:
    out = Path(shutil.copytree(full_store, tmp_path / "s.zarr"))
    left = out / "hidden" / "c.1.0.0.0.0.0123456789abcdef.partial"
    left.write_bytes(b"half")
    make_recording(out)
    assert not left.exists()
    assert same(out, full_store)


def test_a_plan_of_an_existing_store_records_nothing(
    tmp_path: Path, make_recording: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "s.zarr"
    stop_after(2, monkeypatch, lambda: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(RecordingError):
        make_recording(out)
    monkeypatch.undo()
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    asked: list[Any] = []
    make_recording(out, confirm=lambda plan: bool(asked.append(plan)))
    assert len(asked) == 1
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_a_sample_that_is_complete_is_not_written_again(
    tmp_path: Path, make_recording: Callable[..., Path], full_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "s.zarr"
    stop_after(3, monkeypatch, lambda: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(RecordingError, match="Input/output error"):
        make_recording(out)
    monkeypatch.undo()
    finished = run._finished(out)
    assert 0 < len(finished) < 4
    before = {s: (out / f"h_mean_abs/c.{s}.0.0.0.0").stat().st_mtime_ns for s in finished}
    make_recording(out)
    assert {s: (out / f"h_mean_abs/c.{s}.0.0.0.0").stat().st_mtime_ns for s in finished} == before
    assert same(out, full_store)


def test_ctrl_c_keeps_what_is_complete(
    tmp_path: Path, make_recording: Callable[..., Path], full_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "s.zarr"
    stop_after(4, monkeypatch, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 (the signal may arrive when the recording has just ended)
        make_recording(out)
        time.sleep(1)
    monkeypatch.undo()
    assert workbench.verify(out).wrong == []
    make_recording(out)
    assert same(out, full_store)


def test_an_interrupt_that_python_swallows_comes_at_the_next_step() -> None:
    from workbench.record.interrupt import interruptible

    with pytest.raises(KeyboardInterrupt), interruptible() as check:  # noqa: PT012 (the last line raises)
        check()
        with contextlib.suppress(KeyboardInterrupt):  # as a weak reference's callback would
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_full_disk_says_so_and_the_same_command_goes_on(
    tmp_path: Path, make_recording: Callable[..., Path], full_store: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", disk], capture_output=True).returncode:
        # Only where one may not mount; the same error from a file-size limit is tested below, everywhere.
        pytest.skip("needs the right to mount a small disk")
    try:
        with pytest.raises((RecordingError, StoreError), match="disk is full.*same command") as full:
            make_recording(disk / "s.zarr")
        assert isinstance(full.value, RecordingError)
        assert workbench.verify(disk / "s.zarr").wrong == []
        subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
        make_recording(disk / "s.zarr")
        assert same(disk / "s.zarr", full_store)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_file_that_cannot_grow_is_a_full_disk_too(
    tmp_path: Path, make_recording: Callable[..., Path], full_store: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # below one chunk of `hidden`
    try:
        with pytest.raises(RecordingError, match="disk is full.*same command"):
            make_recording(tmp_path / "s.zarr")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert workbench.verify(tmp_path / "s.zarr").wrong == []
    make_recording(tmp_path / "s.zarr")
    assert same(tmp_path / "s.zarr", full_store)


def test_other_settings_are_refused_by_name_and_nothing_is_touched(
    tmp_path: Path, make_recording: Callable[..., Path], full_store: Path
) -> None:
    copy = Path(shutil.copytree(full_store, tmp_path / "s.zarr"))
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    with pytest.raises(
        RecordingError, match=r"other settings \(guidance_scale: 3.0 there, 5.0 now; steps: 3 there, 4 now"
    ):
        make_recording(copy, steps=4, guidance_scale=5.0)
    with pytest.raises(RecordingError, match="model: "):
        make_recording(copy, model=tiny_pipeline(seed=1))
    with pytest.raises(RecordingError, match="embeddings: "):
        make_recording(copy, encode=lambda prompts: {k: v * 1.01 for k, v in encode(prompts).items()})
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path, make_recording: Callable[..., Path]) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("all of it")
    with pytest.raises(StoreError, match="not a recording"):
        make_recording(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "all of it"


def test_nan_in_a_hidden_state_is_refused_with_its_place(tmp_path: Path, make_recording: Callable[..., Path]) -> None:
    pipe = tiny_pipeline()
    with torch.no_grad():
        pipe.transformer.transformer_blocks[1].ff.net[2].bias[5] = float("nan")
    out = tmp_path / "s.zarr"
    with pytest.raises(RecordingError, match=r"NaN or infinite.*layer transformer_blocks\.1, step 0"):
        make_recording(out, model=pipe)
    assert not (workbench.open(out).unit_checksum != 0).any()


def test_a_steered_pipeline_is_not_recorded_as_if_it_were_plain(
    tmp_path: Path, make_recording: Callable[..., Path], tiny: Any, full_store: Path
) -> None:
    spec = workbench.derive_dg(
        workbench.open(full_store), channels=[3], layer="transformer_blocks.1", criterion="top_k"
    )
    with (
        workbench.apply(spec, tiny),
        pytest.raises(RecordingError, match="A steering spec or a disruption is being applied"),
    ):
        make_recording(tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []


def test_two_recorders_into_one_store_are_refused(tmp_path: Path, make_recording: Callable[..., Path]) -> None:
    from workbench.store.lock import locked

    out = make_recording(tmp_path / "s.zarr")
    with locked(out), pytest.raises(RecordingError, match="Another process"):
        make_recording(out)


def test_a_call_too_many_or_too_few_is_an_error(tmp_path: Path, make_recording: Callable[..., Path]) -> None:
    class Hasty(type(tiny_pipeline())):  # type: ignore[misc]
        """A pipeline that leaves out its last step while being recorded, after the dry call."""

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            def stop(pipe: Any, step: int, t: Any, values: Any) -> Any:
                pipe._interrupt = step == 1
                return values

            called.append(True)
            return super().__call__(*args, callback_on_step_end=stop if len(called) > 1 else None, **kwargs)

    called: list[bool] = []

    pipe = tiny_pipeline()
    pipe.__class__ = Hasty
    with pytest.raises(RecordingError, match="made 2 calls of its transformer, the recording expects 3"):
        make_recording(tmp_path / "s.zarr", model=pipe)
    assert workbench.verify(tmp_path / "s.zarr").finished == 0


def test_a_skipped_block_is_an_error_and_not_a_gap(tmp_path: Path, make_recording: Callable[..., Path]) -> None:
    pipe = tiny_pipeline()
    forward = type(pipe.transformer).forward

    class Skipping(type(pipe.transformer)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return forward(self, *args, **kwargs, skip_layers=[1])

    Skipping.__module__, Skipping.__name__ = type(pipe.transformer).__module__, type(pipe.transformer).__name__
    pipe.transformer.__class__ = Skipping
    with pytest.raises(RecordingError, match="Not every block of .* a cache or a layer skip is active"):
        make_recording(tmp_path / "s.zarr", model=pipe)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, "There are no prompts"),
        ({"prompts": ["  "]}, "There are no prompts"),
        ({"prompts": "nowhere.txt"}, "nowhere.txt can't be read"),
        ({"seeds": []}, "There are no seeds"),
        ({"seeds": [1, 1]}, "same seed is given more than once"),
        ({"seeds": [-1]}, "seeds.0 = -1"),
        ({"height": 3}, "height = 3 must be a multiple of 2 pixels"),
        ({"steps": 0}, "steps = 0 can't be used: Input should be greater than or equal to 1"),
        ({"tier": "everything"}, "tier = 'everything'"),
        ({"select": {"layers": "transformer_blocks.9"}}, "no layer named 'transformer_blocks.9'.*positions 0 to 3"),
        ({"select": {"timesteps": "7"}}, "no timestep at position 7"),
        ({"select": {"channels": "0:4"}}, "always holds all tokens and channels"),
        ({"height": 64, "width": 64}, "The pipeline refuses these settings"),
        ({"budget": 1000}, "more than the budget.*--yes"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    tmp_path: Path, make_recording: Callable[..., Path], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(workbench.errors.WorkbenchError, match=message):
        make_recording(tmp_path / "s.zarr", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_refused(tmp_path: Path, make_recording: Callable[..., Path]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="can't be written"):
        make_recording(tmp_path / "file" / "s.zarr")


def test_the_plan_counts_bytes_and_files_exactly(full_store: Path, tiny: Any) -> None:
    from workbench.models import layout_for
    from workbench.record import make_settings, prepare

    settings = make_settings(["red apple", "dog"], [0, 1], steps=3, guidance_scale=3.0, batch_size=2, tier="full")
    _, plan = prepare(tiny, layout_for(tiny), settings, encode, timed=True)
    chunks = [p for name in plan.variables for p in (full_store / name).glob("c.*")]
    assert len(chunks) == plan.files
    assert sum(p.stat().st_size for p in chunks) == plan.bytes
    assert plan.seconds > 0
