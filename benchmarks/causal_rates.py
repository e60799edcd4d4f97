"""Measure how often the causal analysis is wrong, and what it can see: the rates that `docs/methods.md` quotes.

    python -m benchmarks.causal_rates            print the tables
    python -m benchmarks.causal_rates --write    and put them, and the power curve, into docs/

Data sets are drawn at the level of ln mean |h| (`benchmarks.causal_draws`) and judged by the functions the analysis uses; the
located families go through `causal` itself, and so do the planted models, which are real pipelines. Seeds are fixed. About
four minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the planted models live with the tests

from benchmarks.causal_draws import (  # noqa: E402
    CANCELLING,
    GRID,
    NOISES,
    SIGMAS,
    SPREAD,
    cancelling,
    data_sets,
    skewed_slopes,
    units,
)
from tests.analysis.synthetic_experiment import synthetic_experiment  # noqa: E402
from tests.planted import hook_experiment, planted_pipeline  # noqa: E402
from workbench.analysis import inference  # noqa: E402
from workbench.analysis.causal import SMALLEST_EFFECT, causal  # noqa: E402
from workbench.analysis.causal_rule import gather, words  # noqa: E402
from workbench.analysis.decompose import shares  # noqa: E402
from workbench.analysis.single_factor import judge as judge_spread  # noqa: E402
from workbench.figures import style  # noqa: E402

BEGIN, END = "<!-- causal rates: begin -->", "<!-- causal rates: end -->"
CURVE = ROOT / "docs" / "figures" / "causal_power.png"
PROMPTS = ["red apple", "dog face", "blue heart", "pizza", "rocket", "green car"]
SETS = 1000
REPLICATES = (6, 8, 16, 32)
EFFECTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7)


def judge(values: np.ndarray, *, family: bool = False) -> dict[str, np.ndarray]:
    """What the analysis says of data sets (P, S, T, E, L, X), by its own functions.

    Each is one channel and alone, or with `family` the X of them are the channels of one experiment.
    """
    counted = np.ones(values.shape[-2:], dtype=bool)
    evidence = gather(values, counted, SIGMAS, family=None if family else 1)
    profile = values.mean(axis=(1, 2, 4))
    flips = inference.sign_flip_vectors(profile - profile.mean(axis=1, keepdims=True), resamples=999)
    p = flips.p_corrected if family else flips.p_value
    return {
        "verdict": words(evidence, p, margin=SMALLEST_EFFECT, alpha=0.05),
        "p": p,
        "low": evidence.effect.low,
        "high": evidence.effect.high,
        "profile": profile,
    }


def rate(hits: np.ndarray) -> str:
    """A share of data sets with its exact 95 % interval."""
    low, high = binomtest(int(hits.sum()), len(hits)).proportion_ci()
    return f"{hits.mean():.1%} ({low:.1%} to {high:.1%})"


def type_one() -> list[str]:
    rows = [
        "| prompts' own profiles | prompts | p ≤ 0.05, prompts flipped | p ≤ 0.05, labels permuted | called supported | called not supported |"
    ]
    rows.append("|---|---:|---:|---:|---:|---:|")
    for noise, spread in (
        *((noise, SPREAD) for noise in NOISES),
        ("independent", 0.3),
        ("smooth over embeddings", 0.3),
    ):
        for n in REPLICATES[:3]:
            found = judge(data_sets(n, 0.0, noise=noise, spread=spread))
            labels = inference.permute_within(found["profile"], resamples=499).p_value <= 0.05
            cells = (
                rate(found["p"] <= 0.05),
                rate(labels),
                rate(found["verdict"] == "supported"),
                f"{np.mean(found['verdict'] == 'not supported'):.1%}",
            )
            rows.append(f"| {noise}, {spread:g} | {n} | " + " | ".join(cells) + " |")
    return rows


AT_MARGIN: dict[str, dict[str, Any]] = {
    "ramp; independent, 0.1": {},
    "ramp; smooth, 0.1": {"noise": "smooth over embeddings"},
    "ramp; skewed, 0.1": {"noise": "skewed"},
    "ramp; wider at one end, 0.1": {"noise": "wider at one end"},
    "ramp; independent, 0.3": {"spread": 0.3},
    "ramp; smooth, 0.3": {"noise": "smooth over embeddings", "spread": 0.3},
    "ramp; independent, 0.02": {"spread": 0.02},
    "step; independent, 0.1": {"shape": "step"},
    "step; independent, 0.02": {"shape": "step", "spread": 0.02},
    "ramp, sizes log-normal over prompts; 0.02": {"slopes": skewed_slopes, "spread": 0.02},
    "step, sizes log-normal over prompts; 0.02": {"slopes": skewed_slopes, "shape": "step", "spread": 0.02},
    "ramp, sizes log-normal over prompts; none": {"slopes": skewed_slopes, "spread": 0.0},
}


def at_margin() -> list[str]:
    rows = [
        "| effect; prompts' own profiles | prompts | called supported | called not supported | interval holds the truth |"
    ]
    rows.append("|---|---:|---:|---:|---:|")
    for name, options in AT_MARGIN.items():
        for n in REPLICATES[:3]:
            found = judge(data_sets(n, SMALLEST_EFFECT, seed=1, **options))
            held = (found["low"] <= SMALLEST_EFFECT) & (found["high"] >= SMALLEST_EFFECT)
            both = (rate(found["verdict"] == verdict) for verdict in ("supported", "not supported"))
            rows.append(f"| {name} | {n} | " + " | ".join(both) + f" | {held.mean():.1%} |")
    return rows


def cancels() -> list[str]:
    rows = [
        "| effect of the embedding | prompts | supported | not supported | undecided |",
        "|---|---:|---:|---:|---:|",
    ]
    for kind in CANCELLING:
        for n in REPLICATES[:3]:
            said = judge(cancelling(kind, n))["verdict"]
            counts = (f"{np.mean(said == v):.1%}" for v in ("supported", "not supported", "undecided"))
            rows.append(f"| {kind} | {n} | " + " | ".join(counts) + " |")
    return rows


def families(sets: int = 300, channels: int = 40) -> list[str]:
    rows = [
        "| effect of all channels, at the margin | prompts | any called supported | the same, without correction over channels |"
    ]
    rows.append("|---|---:|---:|---:|")
    for name, options in (("ramp, 0.1", {}), ("step, 0.1", {"shape": "step"}), ("ramp, 0.02", {"spread": 0.02})):
        for n in REPLICATES[:3]:
            values = data_sets(n, SMALLEST_EFFECT, sets=sets * channels, seed=5, **options)
            alone = (judge(values)["verdict"] == "supported").reshape(sets, channels).any(axis=1)
            parts = np.split(values, sets, axis=-1)
            together = np.asarray([(judge(part, family=True)["verdict"] == "supported").any() for part in parts])
            rows.append(f"| {name} | {n} | {rate(together)} | {rate(alone)} |")
    return rows


def selected(sets: int = 150) -> list[str]:
    """Families through `causal` itself, located on the very cells that enter the effect, near the ratio of the criterion."""
    p, verdicts, massive = [], [], []
    for seed in range(sets):
        rng = np.random.default_rng(seed)
        data = synthetic_experiment(prompts=8, seeds=1, grid=3, channels=64, noise=0.15, seed=seed)
        size = np.log(4.3) + 0.2 * rng.standard_normal(12)
        _, column = np.unique(data["embedding_sigma"].values, return_inverse=True)
        own = 0.1 * rng.standard_normal((8, 3, 12))[:, column]
        factor = np.exp(size + own)[:, None, None].astype(np.float32)
        for name in ("h_mean_abs", "h_mean", "h_max_abs", "h_std"):
            values = data[name].values.copy()
            values[..., 20:32] *= factor
            data[name] = (data[name].dims, values)
        found = causal(data, resamples=5, permutations=5)
        at = found["massive"].any("layer").values & (found["channel"].values >= 20)
        massive.append(int(at.sum()))
        p.append(np.nanmin(found["p_corrected_overall"].sel(factor="embedding").values))
        verdicts += found["channel_verdict"].values.tolist()
    hits = np.asarray(p) <= 0.05
    return [
        "| experiments | of 12 channels near the ratio, located | p ≤ 0.05 for any channel | channels called supported |",
        "|---:|---:|---:|---:|",
        f"| {sets} | {min(massive)} to {max(massive)} | {int(hits.sum())}: {rate(hits)} | {verdicts.count('supported')} of {len(verdicts)} |",
    ]


def spreads(sets: int = 500, columns: int = 24) -> list[str]:
    rows = ["| units are | units | called not supported | called supported | any of 24 columns called supported |"]
    rows.append("|---|---:|---:|---:|---:|")
    for kind in ("normal", "uniform", "Laplace", "log-normal"):
        for n in (5, *REPLICATES):
            draws = SMALLEST_EFFECT * units(kind, np.random.default_rng([n, 6]), (n, sets, columns))
            one, all_of = np.ones((1, 1), dtype=bool), np.ones((1, columns), dtype=bool)
            said = np.asarray(
                [judge_spread(draws[:, i, None, :1], one, margin=SMALLEST_EFFECT)[1] for i in range(sets)]
            )
            many = np.asarray([judge_spread(draws[:, i, None], all_of, margin=SMALLEST_EFFECT)[1] for i in range(sets)])
            cells = (rate(said == "not supported"), rate(said == "supported"), rate(many == "supported"))
            rows.append(f"| {kind} | {n} | " + " | ".join(cells) + " |")
    return rows


def power() -> list[str]:
    rows = ["| effect, ln units | " + " | ".join(f"{n} prompts" for n in REPLICATES) + " |"]
    rows.append("|---:|" + "---:|" * len(REPLICATES))
    curves = np.zeros((2, len(REPLICATES), len(EFFECTS)))
    for spread, effects in ((SPREAD, EFFECTS), (0.3, (0.0, 0.3, 0.5, 0.7, 1.0)), (0.02, (0.0, 0.05, 0.15, 0.2))):
        rows.append(f"| **prompts' own profiles {spread:g}** |" + " |" * len(REPLICATES))
        for j, effect in enumerate(effects):
            cells = []
            for i, n in enumerate(REPLICATES):
                found = judge(data_sets(n, effect, spread=spread, sets=SETS // 2, seed=2))["verdict"]
                shares_of = [np.mean(found == v) for v in ("supported", "not supported")]
                cells.append(" / ".join(f"{s:.1%}" for s in shares_of))
                if spread == SPREAD:
                    curves[:, i, j] = shares_of
            rows.append(f"| {effect:g} | " + " | ".join(cells) + " |")
    draw(curves)
    return rows


def draw(curves: np.ndarray) -> Figure:
    """Share of data sets called supported, and not supported, over the size of the effect."""
    with style.paper():
        figure, axes = style.new(style.PAGE, 2.3, 1, 2, sharey=True)
        for panel, curve, title in zip(axes[0], curves, ("called supported", "called not supported"), strict=True):
            for i, (n, colour) in enumerate(zip(REPLICATES, style.colours(len(REPLICATES)), strict=True)):
                marker = style.markers(len(REPLICATES))[i]
                panel.plot(EFFECTS, curve[i], color=colour, marker=marker, label=f"{n} prompts")
            panel.axvline(SMALLEST_EFFECT, color="0.4", linewidth=0.8, linestyle=(0, (4, 2)))
            panel.text(
                SMALLEST_EFFECT + 0.01, 0.5, "smallest effect", rotation=90, va="center", color="0.4", fontsize=6
            )
            panel.set(title=title, xlabel="effect of the embedding, ln units", ylim=(-0.02, 1.02))
            panel.grid(axis="y")
        axes[0, 0].set_ylabel("share of data sets")
        axes[0, 1].legend(loc="upper right")
        style.save(figure, CURVE.parent, CURVE.stem)
        CURVE.with_suffix(".pdf").unlink()  # the page shows the PNG
    return figure


def planted(count: int = 25) -> list[str]:
    rows = [
        "| planted | models × channels | supported | not supported | undecided | embedding's share | latent's share |"
    ]
    rows.append("|---|---:|---:|---:|---:|---:|---:|")
    for kind in ("constant", "noise_only", "gate", "both"):
        verdicts, split = [], []
        for seed in range(count):
            pipeline = planted_pipeline(kind, 3000 + seed)
            found = causal(
                hook_experiment(pipeline, prompts=PROMPTS, seeds=[seed], steps=8, grid=3),
                resamples=200,
                permutations=199,
            )
            verdicts += [str(v) for v in found["channel_verdict"].values]
            split.append(found["share_overall"].sel(factor=["embedding", "latent"]).mean("channel").values)
        counts = (verdicts.count(v) for v in ("supported", "not supported", "undecided"))
        low, high = np.min(split, axis=0), np.max(split, axis=0)
        span = (f"{a:.0%} to {b:.0%}" for a, b in zip(low, high, strict=True))
        rows.append(f"| {kind} | {len(verdicts)} | " + " | ".join([*map(str, counts), *span]) + " |")
    return rows


METHODS = ("percentile", "expanded", "bca", "bca_expanded")


def coverage() -> list[str]:
    """Of means, of a ratio of means, and of the embedding's share of variance, by method."""
    rows = ["| statistic | prompts | " + " | ".join(METHODS) + " |", "|---|---:|" + "---:|" * len(METHODS)]
    draws: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], Callable, float]] = {
        "mean, normal": (lambda g, n: g.standard_normal((n, SETS)), lambda m: m, 0.0),
        "mean, log-normal": (
            lambda g, n: np.exp(0.7 * g.standard_normal((n, SETS))),
            lambda m: m,
            float(np.exp(0.245)),
        ),
        "ratio of means": (
            lambda g, n: np.exp(0.5 * g.standard_normal((n, SETS, 1)) + 0.5 * g.standard_normal((n, SETS, 2))),
            lambda m: m[..., 0] / m[..., 1],
            1.0,
        ),
    }
    for name, (values, function, truth) in draws.items():
        for n in REPLICATES:
            drawn = values(np.random.default_rng(n), n)
            cells = []
            for method in METHODS:
                found = inference.bootstrap(drawn, function, resamples=500, method=method)
                cells.append(np.mean((found.low <= truth) & (truth <= found.high)))
            rows.append(f"| {name} | {n} | " + " | ".join(f"{c:.1%}" for c in cells) + " |")
    for effect in (0.5, 0.1):
        for n in REPLICATES[:3]:
            drawn = data_sets(n, effect, seed=3, sets=200)[:, :, :, :, 0]
            truth = share_truth(effect)
            cells = []
            for method in METHODS:
                names, found, _ = shares(drawn, resamples=400, method=method)
                at = names.index("embedding")
                cells.append(np.mean((found.low[at] <= truth) & (truth <= found.high[at])))
            name = f"share of an embedding of effect {effect:g}"
            rows.append(f"| {name} | {n} | " + " | ".join(f"{c:.1%}" for c in cells) + " |")
    return rows


def share_truth(effect: float) -> float:
    """The embedding's share in `data_sets` with infinitely many prompts."""
    ramp, inner = np.linspace(0.0, 1.0, GRID).var(), 1.0 - 1.0 / GRID
    common, own = ramp * effect**2, SPREAD**2 * (1.0 / GRID + inner)
    return float(common / (common + ramp + 2 * own + 0.3**2 + 0.05**2))


TABLES: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "type_one": ("No effect of the embedding, a strong one of the latent: how often it is called one", type_one),
    "at_margin": ("Effect exactly at the smallest that counts: wrong either way", at_margin),
    "cancels": ("Small in the mean over latents and blocks, but not in each: `not supported` would be wrong", cancels),
    "families": ("40 channels, all exactly at the margin", families),
    "selected": ("No effect, channels located on the cells that enter the effect, through `causal`", selected),
    "power": ("Power: called supported / called not supported, by effect and prompts", power),
    "planted": ("Planted models", planted),
    "spreads": ("Single factors: standard deviation exactly at the margin, wrong either way", spreads),
    "coverage": ("Coverage of intervals and ranges meant for 95 %, by method", coverage),
}


def write(measured: dict[str, str]) -> None:
    """Put these tables into the page; the others stay as they are."""
    page = ROOT / "docs" / "methods.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    inside, after = rest.split(END)
    parts = [part.removeprefix("**").split("**\n\n", 1) for part in inside.strip().split("\n\n**") if part]
    there = dict(parts)
    texts = [f"**{t}**\n\n{(there | measured)[t]}" for t, _ in TABLES.values() if t in measured | there]
    page.write_text(before + BEGIN + "\n\n" + "\n\n".join(texts) + "\n\n" + END + after, encoding="utf-8")


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/methods.md")
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES), help="which tables")
    arguments = parser.parse_args()
    measured = {}
    for name in arguments.only:
        title, make = TABLES[name]
        measured[title] = "\n".join(make())
        print(f"**{title}**\n\n{measured[title]}\n", flush=True)
        if arguments.write:
            write(measured)


if __name__ == "__main__":
    main()
