"""Figures of the causal analysis: they draw what it returned, with intervals where there are any, and say when not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.synthetic_experiment import by_embedding, synthetic_experiment
from workbench.analysis.causal import causal
from workbench.errors import AnalysisError
from workbench.figures import registry, style

NAMES = [name for name, entry in registry.FIGURES.items() if entry.needs == "causal"]
FAST = {"resamples": 100, "permutations": 99}


@pytest.fixture(scope="module")
def evidence():
    return causal(
        synthetic_experiment(lambda p, s, t, e: 0.5 * e + 0.3 * t, mediate={"gate": 0.7, "shift_scale": 0.2}), **FAST
    )


def test_there_are_three():
    assert NAMES == ["causal_surface", "variance_shares", "mediation"]


@pytest.mark.parametrize("name", NAMES)
def test_draws_the_same_bytes_twice_and_says_what_it_shows(name, evidence, tmp_path):
    module = registry.load(name)
    first, second = (
        style.save(module.draw(evidence), tmp_path / folder, name, data=module.data(evidence)) for folder in "ab"
    )
    assert [f.suffix for f in first] == [".pdf", ".png", ".csv"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
    caption = module.caption(evidence)
    assert "n = 6 prompts × 2 seeds; branch cond" in caption
    what = "lines are 95% bootstrap ranges" if name == "variance_shares" else "bands are 95% bootstrap intervals"
    assert f"{what} over prompts" in caption
    assert caption.endswith("Verdict: supported.")
    assert evidence.attrs["verdict_reason"] not in caption, "the report gives the reason once"


def test_surface_draws_the_cells_and_their_marginal_means(evidence):
    table = registry.load("causal_surface").data(evidence)
    own = table[(table["channel"] == 3) & (table["what"] == "surface")]
    corner = own.sort_values(["latent_sigma", "embedding_sigma"])["relative"].to_numpy()
    assert corner[-1] / corner[0] == pytest.approx(np.exp(0.8 * 0.9), rel=0.03)
    curves = table[table["what"].isin(["embedding", "latent"])]
    assert (curves["low"] <= curves["relative"]).all()
    assert (curves["high"] >= curves["relative"]).all()


def test_surface_of_a_layer_that_is_not_there_is_refused(evidence):
    module = registry.load("causal_surface")
    assert "block 0" in module.draw(evidence, layer="transformer_blocks.0").axes[0].get_title("left")
    with pytest.raises(AnalysisError, match="no layer 'blocks.9'"):
        module.draw(evidence, layer="blocks.9")


def test_shares_sum_to_one_overall_and_in_every_block(evidence):
    table = registry.load("variance_shares").data(evidence)
    sums = table.groupby(["channel", "layer"])["share"].sum()
    np.testing.assert_allclose(sums, 1.0, atol=1e-6)
    assert set(table["channel"]) == {"3", "11", "median"}
    assert "overall" in set(table["layer"])


def test_mediation_draws_each_part_or_why_there_is_none(evidence):
    module = registry.load("mediation")
    table = module.data(evidence)
    assert table.set_index(["channel", "swap"])["mediated"][3, "gate"] == pytest.approx(0.7, abs=0.05)
    assert module.data(evidence, at="block")["mediated"].notna().all()
    with pytest.raises(AnalysisError, match="at='middle': choose one of last, block"):
        module.draw(evidence, at="middle")
    nothing = causal(synthetic_experiment(mediate={"gate": 0.5}), **FAST)
    texts = [text.get_text() for axes in module.draw(nothing).axes for text in axes.texts]
    assert "no effect to share out" in texts
    assert "there is nothing to share out" in module.caption(nothing)


def test_without_mediation_cells_the_figure_is_left_out_by_name():
    plain = causal(synthetic_experiment(by_embedding(0.5)), **FAST)
    assert registry.missing("mediation", plain) == "the experiment holds no mediation cells"
    assert registry.missing("variance_shares", plain) == ""
    with pytest.raises(AnalysisError, match="holds no mediation cells"):
        registry.load("mediation").draw(plain)


@pytest.mark.parametrize("name", NAMES)
def test_too_few_prompts_are_drawn_without_intervals(name):
    few = causal(synthetic_experiment(by_embedding(0.5), prompts=3, seeds=1, mediate={"gate": 0.5}), **FAST)
    module = registry.load(name)
    module.draw(few)
    assert "s (3 prompts, of at least 5)" in module.caption(few)


@pytest.mark.parametrize("name", NAMES)
def test_many_channels_and_blocks_fit(name):
    data = synthetic_experiment(by_embedding(0.5), layers=24, mediate={"gate": 0.5}, grid=2)
    module = registry.load(name)
    module.draw(causal(data, channels=list(range(12)), **FAST))
