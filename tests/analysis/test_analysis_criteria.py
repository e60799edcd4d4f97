"""Each criterion does what its source says, on states where the answer can be read off."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.synthetic import synthetic
from tests.reduce_reference import to_dataset
from workbench.analysis import criteria
from workbench.analysis.visits import Visits
from workbench.errors import AnalysisError


def visits(planted=None, **options) -> Visits:
    return Visits(synthetic(planted, **options), "cond")


def found(name: str, v: Visits, **parameters) -> set[int]:
    mask = criteria.get(name).rule(v, **parameters)[:, 1:]
    assert (mask == mask[:1, :1, :1]).all(), "the planted channels are planted alike at every block"
    return set(np.flatnonzero(mask[0, 0, 0]))


def test_workbench_finds_the_planted_channels_and_no_other():
    assert found("workbench", visits({3: 12.0, 40: -8.0})) == {3, 40}


def test_workbench_finds_nothing_where_nothing_is_planted():
    assert found("workbench", visits()) == set()


def test_workbench_ignores_a_channel_that_is_large_on_one_token_only():
    recording = synthetic(hidden=True, tokens=64, channels=128)
    h = recording["hidden"].values.copy()
    h[..., 0, 7] = 1600.0  # one token of 64: the mean over tokens is 25, far above four times the median
    v = Visits(to_dataset(h), "cond")
    assert v.ratio_to_median_SLTC[..., 7].min() > 4
    assert found("workbench", v) == set()
    assert found("workbench", v, token_share=1 / 64) == {7}


def test_workbench_ignores_the_largest_of_channels_that_all_differ_widely():
    v = visits(spread=1.0, channels=256, seed=1)
    assert v.ratio_to_median_SLTC.max() > 4
    assert found("workbench", v) == set()


@pytest.mark.parametrize(("value", "expected"), [(2000.0, {5}), (700.0, set()), (90.0, set())])
def test_sun2024_needs_magnitude_and_ratio(value, expected):
    # |h| of an ordinary entry has median 0.67: 2000 is 3000 times that, 700 is 1040 times it; 90 is not above 100
    v = visits({5: value}, spread=0.0)
    parameters = {"ratio": 1200.0} if value == 700.0 else {}
    assert found("sun2024", v, **parameters) == expected


def test_sun2024_without_states_agrees_with_the_exact_median_to_two_percent():
    recording = synthetic({5: 2000.0, 9: -3.0}, hidden=True, tokens=64)
    exact, approximate = Visits(recording, "cond"), Visits(recording.drop_vars("hidden"), "cond")
    for visit in [(0, 1, 0), (3, 2, 2), (5, 0, 1)]:
        truth = np.median(np.abs(recording["hidden"].sel(branch="cond").values[visit]))
        assert criteria.median_abs(exact, *visit) == pytest.approx(truth, rel=1e-6)
        assert criteria.median_abs(approximate, *visit) == pytest.approx(truth, rel=0.02)


def test_sun2024_reads_bfloat16_states_stored_as_bits():
    recording = synthetic({5: 2000.0}, hidden=True)
    values = recording["hidden"].values
    bits = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    stored = recording.assign(hidden=(recording["hidden"].dims, bits, {"torch_dtype": "bfloat16"}))
    truth = criteria.median_abs(Visits(recording, "cond"), 0, 1, 0)
    assert criteria.median_abs(Visits(stored, "cond"), 0, 1, 0) == pytest.approx(truth, rel=2**-7)


def test_stas_is_a_ratio_to_the_mean_of_all_channels():
    v = visits({5: 1000.0}, channels=64)
    assert found("stas", v) == {5}
    # with 48 channels nothing can be 50 times a mean that it is part of
    assert found("stas", visits({5: 1000.0}, channels=48)) == set()


def test_top_k_ranks_by_mean_of_magnitude_and_its_variant_by_magnitude_of_mean():
    v = visits({5: 20.0, 9: 10.0}, channels=24)
    assert found("top_k", v, k=2) == {5, 9} == found("top_k_abs_mean", v, k=2)
    assert (criteria.get("top_k").rule(v).sum(axis=-1) == 12).all()


def test_top_k_variants_differ_on_a_channel_whose_sign_varies_over_tokens():
    h = synthetic(hidden=True)["hidden"].values.copy()
    h[..., 9] += 5.0
    h[..., ::2, 5] += 9.0
    h[..., 1::2, 5] -= 9.0
    v = Visits(to_dataset(h), "cond")
    assert set(np.flatnonzero(criteria.top_k(v, k=1)[0, 1, 0])) == {5}
    assert set(np.flatnonzero(criteria.top_k_abs_mean(v, k=1)[0, 1, 0])) == {9}


def test_recurrence_counts_samples_then_timesteps_then_layers():
    mask = np.zeros((4, 3, 2, 3), dtype=bool)  # S L T C; layer 0 does not count
    mask[:3, 1, :, 0] = True  # channel 0: three of four samples, both timesteps, one of two blocks
    mask[:2, 1, :, 1] = True  # channel 1: only half of the samples
    mask[:, 0, :, 2] = True  # channel 2: everywhere, but only in the layer that does not count
    counted = np.asarray([False, True, True])
    result = criteria.recurrence(mask, counted, {**criteria.RECURRENCE, "layer_fraction": 0.5})
    assert result.massive_channel_C.tolist() == [True, False, False]
    assert result.layer_C.tolist() == [0.5, 0.0, 0.0]
    assert result.timestep_C.tolist() == [1.0, 0.0, 0.0]
    assert result.alone_SC.sum(axis=0).tolist() == [3, 2, 0]
    assert result.massive_LC[0].tolist() == [False, False, True]


def test_cells_of_different_samples_do_not_add_up():
    # Each sample has the channel at another timestep: no cell has it, although every sample has it somewhere.
    mask = np.zeros((4, 1, 4, 1), dtype=bool)
    for i in range(4):
        mask[i, 0, i, 0] = True
    result = criteria.recurrence(mask, np.asarray([True]), {**criteria.RECURRENCE, "timestep_fraction": 0.25})
    assert not result.massive_channel_C.any()
    assert result.alone_SC.sum(axis=0).tolist() == [4]


def test_every_parameter_is_documented_and_every_criterion_names_its_source():
    rows = criteria.describe()
    assert {row["criterion"] for row in rows} == set(criteria.CRITERIA)
    for row in rows:
        assert row["meaning"], row
    for criterion in criteria.CRITERIA.values():
        assert criterion.source
        assert criterion.version
        assert criterion.summary


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ration": 3}, "Did you mean 'ratio'"),
        ({"ratio": "4"}, "are numbers"),
        ({"ratio": 0}, "above 0"),
        ({"ratio": float("nan")}, "above 0"),
        ({"layer_fraction": 1.5}, "at most 1"),
    ],
)
def test_wrong_parameters_are_refused(given, said):
    with pytest.raises(AnalysisError, match=said):
        criteria.get("workbench").resolve(given)


@pytest.mark.parametrize("k", [0.5, 2.5])
def test_a_count_of_channels_is_a_whole_number(k):
    with pytest.raises(AnalysisError, match="is a count"):
        criteria.get("top_k").resolve({"k": k})


def test_a_whole_number_given_as_float_is_kept_as_the_count_it_is():
    assert criteria.get("top_k").resolve({"k": 3.0})["k"] == 3
    assert isinstance(criteria.get("top_k").resolve({"k": 3.0})["k"], int)


def test_unknown_criterion_names_the_known_ones():
    with pytest.raises(AnalysisError, match="sun2024, stas, top_k"):
        criteria.get("mine")
