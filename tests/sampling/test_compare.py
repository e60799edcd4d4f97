"""Numbers per image, paired differences, and a grid in which everything can be read."""

import csv
import dataclasses

import numpy as np
import pandas as pd
import pytest

from workbench.cli import show
from workbench.errors import WorkbenchError
from workbench.report.sections import _differences
from workbench.sampling.compare import NUMBERS, caption, compare, comparison_figure, counted
from workbench.sampling.measures import MEASURES
from workbench.sampling.result import SampleResult

SPEC = {
    "weight": 1.5,
    "channels": [5, 41],
    "layer": "transformer_blocks.2",
    "window": {"unit": "sigma", "low": 0.0, "high": 0.7},
}


def make(
    n: int = 6,
    modes: tuple[str, ...] = ("plain", "cfg", "dg", "cfg+dg"),
    size: tuple[int, int] = (24, 32),
    sharper: float = 0.2,
) -> SampleResult:
    """Images whose modes with ``dg`` have noise on top, and no other difference."""
    rng = np.random.default_rng(0)
    base = np.linspace(0.2, 0.8, size[1])[None, None, :, None] + 0.02 * rng.random((n, *size, 3))
    noise = sharper * (rng.random((n, *size, 3)) - 0.5)
    images = np.stack([base + noise * ("dg" in mode) for mode in modes])
    return SampleResult(
        images=(np.clip(images, 0, 1) * 255).round().astype(np.uint8),
        latents=np.zeros((len(modes), n, 4, 3, 4), dtype=np.float32),
        modes=modes,
        prompts=tuple(f"a rather long prompt that has to be wrapped somewhere, number {i}" for i in range(n)),
        seeds=tuple(range(n)),
        settings={
            "steps": 20,
            "guidance_scale": 4.0,
            "height": size[0],
            "width": size[1],
            "dtype": "float32",
            "spec": SPEC,
        },
    )


def test_table_has_a_row_an_image() -> None:
    table = compare(make()).table
    assert len(table) == 24
    assert list(table.columns) == ["sample", "prompt", "seed", "mode", *MEASURES, "low_pass_similarity"]
    assert table.attrs["reference"] == "cfg"
    own = table[table["mode"].isin(["cfg", "plain"])]
    np.testing.assert_allclose(own["low_pass_similarity"], 1.0)
    assert not table.isna().any(axis=None)


def test_paired_differences_find_the_added_detail_and_only_that() -> None:
    rows = compare(make()).differences.set_index(["mode", "against", "measure"])
    assert sorted({key[:2] for key in rows.index}) == [("cfg", "plain"), ("cfg+dg", "cfg"), ("dg", "plain")]
    detail = rows.loc[("cfg+dg", "cfg", "high_frequency_share")]
    assert detail["low"] > 0.01
    assert detail["low"] <= detail["difference"] <= detail["high"]
    assert detail["difference"] == pytest.approx(detail["mean"] - detail["mean_against"])
    assert detail["n"] == 6
    for measure in MEASURES:
        assert rows.loc[("cfg", "plain", measure), ["difference", "low", "high"]].tolist() == [0, 0, 0]
    assert rows.loc[("cfg+dg", "cfg", "low_pass_similarity"), "mean"] > 0.98


def repeated(result: SampleResult, times: int) -> SampleResult:
    """Every sample `times` times, under another seed: what seeds that change nothing would give."""
    return dataclasses.replace(
        result,
        images=np.repeat(result.images, times, axis=1),
        latents=np.repeat(result.latents, times, axis=1),
        prompts=tuple(prompt for prompt in result.prompts for _ in range(times)),
        seeds=tuple(seed for _ in result.prompts for seed in range(times)),
    )


def test_more_seeds_of_the_same_prompts_are_not_more_evidence() -> None:
    once, often = compare(make()).differences, compare(repeated(make(), 4)).differences
    assert set(often["n"]) == set(once["n"]) == {6}
    assert (set(once["n_samples"]), set(often["n_samples"])) == ({6}, {24})
    assert set(often["replicate"]) == {"prompt"}
    pd.testing.assert_frame_equal(often[list(NUMBERS)], once[list(NUMBERS)])


def test_interval_of_two_seeds_a_prompt_covers_as_often_as_it_says(monkeypatch) -> None:
    """Prompts differ (intraclass correlation 0.8), as in real recordings: 8 prompts x 2 seeds. One by one: 0.85."""
    rng, hits = np.random.default_rng(1), 0
    result = repeated(make(n=8, modes=("plain", "cfg"), size=(4, 4)), 2)
    monkeypatch.setattr("workbench.sampling.compare.low_pass_similarity", lambda *_: 1.0)
    measure = "contrast"
    monkeypatch.setattr("workbench.sampling.compare.MEASURES", {measure: lambda image: next(numbers)})
    for _ in range(200):
        effect = np.repeat(rng.standard_normal(8) * np.sqrt(0.8), 2) + rng.standard_normal(16) * np.sqrt(0.2)
        numbers = iter(np.stack([np.zeros(16), effect], axis=1).ravel())  # by sample, then by mode
        row = compare(result, resamples=500).differences.iloc[0]
        hits += row["low"] <= 0 <= row["high"]
    assert 0.90 <= hits / 200 <= 0.99


def test_seeds_count_where_there_is_one_prompt() -> None:
    result = make(n=5)
    result = dataclasses.replace(result, prompts=("red apple",) * 5)
    rows = compare(result).differences
    assert set(rows["n"]) == {5}
    assert set(rows["replicate"]) == {"seed"}
    assert rows["low"].notna().all()


@pytest.mark.parametrize("n", [1, 2, 4])
def test_few_replicates_have_no_interval_and_one_mode_no_difference(n) -> None:
    rows = compare(repeated(make(n=n), 3 if n > 1 else 1)).differences
    assert set(rows["n"]) == {n}
    assert rows["low"].isna().all()
    assert rows["high"].isna().all()
    assert rows["difference"].notna().all()
    single = compare(make(modes=("cfg",)))
    assert single.differences.empty
    assert "difference" in single.differences.columns


def test_same_result_same_numbers_and_csv(tmp_path) -> None:
    first, second = compare(make()), compare(make())
    pd.testing.assert_frame_equal(first.table, second.table)
    pd.testing.assert_frame_equal(first.differences, second.differences)
    paths = first.save(tmp_path)
    assert [path.name for path in paths] == ["images.csv", "differences.csv"]
    pd.testing.assert_frame_equal(pd.read_csv(paths[1]), first.differences, check_exact=False, rtol=1e-12)
    with pytest.raises(WorkbenchError, match="Choose a folder that exists"):
        first.save(tmp_path / "none")


@pytest.mark.parametrize(("size", "modes"), [((24, 32), ("plain", "cfg", "dg", "cfg+dg")), ((40, 20), ("cfg",))])
def test_grid_shows_everything_and_nothing_overlaps(size, modes) -> None:
    result = make(n=3, size=size, modes=modes)
    figure = comparison_figure(result)
    figure.canvas.draw()
    assert len(figure.axes) == 3 * len(modes)
    assert [axes.get_title() for axes in figure.axes[: len(modes)]] == [result.title(mode) for mode in modes]
    page = figure.bbox
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    boxes += [axes.get_window_extent() for axes in figure.axes]
    for i, box in enumerate(boxes):
        inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert inside, f"{i}: {box} is not on the page {page}"
        for other in boxes[:i]:
            assert not (box.overlaps(other) and box.width * other.width), (box, other)
    for axes in figure.axes:
        drawn = axes.get_window_extent()
        assert drawn.width / drawn.height == pytest.approx(size[1] / size[0], rel=1e-6), "not distorted"


def test_captions_say_what_was_done() -> None:
    assert "channels 5, 41 zeroed before transformer_blocks.2, sigma 0 to 0.7" in caption(make())
    without = make()
    without.settings["spec"] = None
    assert "DG" not in caption(without)
    assert make().title("cfg+dg") == "CFG s=4 + DG w=1.5"


def test_caption_says_what_n_is() -> None:
    assert counted(make().prompts) == "n = 6 prompts × 1 seed"
    assert counted(repeated(make(), 2).prompts) == "n = 6 prompts × 2 seeds"
    assert counted(["red apple"] * 3) == "n = 3 seeds of one prompt"


def test_tables_say_that_n_is_too_small_and_what_n_is(tmp_path, capsys) -> None:
    for n, said in ((2, True), (5, False)):
        result = repeated(make(n=n), 2)
        compare(result).save(tmp_path)
        show.sampled(compare(result).differences, tmp_path)
        shown = " ".join(capsys.readouterr().out.split())
        assert f"n = {n} prompts, {2 * n} samples" in shown
        with (tmp_path / "differences.csv").open() as file:
            table = _differences(list(csv.DictReader(file)))
        assert f"n = {n} prompts ({2 * n} samples)" in table["caption"]
        for text in (shown, str(table["rows"])):
            assert "nan" not in text
            assert ("too small" in text) is said


def test_mode_that_is_not_there() -> None:
    with pytest.raises(WorkbenchError, match="no images of mode 'dg'; there are cfg"):
        make(modes=("cfg",)).of("dg")
