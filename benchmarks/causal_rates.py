"""Measure how often the causal analysis is wrong, and what it can see: the rates that `docs/methods.md` quotes.

    python -m benchmarks.causal_rates            print the tables
    python -m benchmarks.causal_rates --write    and put them, and the power curve, into docs/

Data sets are drawn at the level of ln mean |h| (prompts × seeds × latents × embeddings) and judged by the functions the
analysis uses; the planted models are real pipelines. Seeds are fixed. About four minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the planted models live with the tests

from tests.planted import hook_experiment, planted_pipeline  # noqa: E402
from workbench.analysis import inference  # noqa: E402
from workbench.analysis.causal import SMALLEST_EFFECT, causal  # noqa: E402
from workbench.analysis.decompose import shares  # noqa: E402
from workbench.figures import style  # noqa: E402

BEGIN, END = "<!-- causal rates: begin -->", "<!-- causal rates: end -->"
CURVE = ROOT / "docs" / "figures" / "causal_power.png"
PROMPTS = ["red apple", "dog face", "blue heart", "pizza", "rocket", "green car"]
SETS, GRID, SEEDS, SPREAD = 1000, 5, 2, 0.1
REPLICATES = (6, 8, 16, 32)
EFFECTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7)

Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def smooth(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Profiles whose neighbouring embeddings resemble each other: autoregressive along the last axis but one."""
    out = rng.standard_normal(shape)
    for i in range(1, shape[-2]):
        out[..., i, :] = 0.9 * out[..., i - 1, :] + np.sqrt(1 - 0.81) * out[..., i, :]
    return out


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Log-normal deviations, the mean taken out."""
    values = np.exp(rng.standard_normal(shape))
    return (values - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)


def uneven(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normal, but three times as wide at one end of the embeddings as at the other."""
    return rng.standard_normal(shape) * np.linspace(0.5, 1.5, shape[-2])[:, None]


NOISES: dict[str, Noise] = {
    "independent": lambda rng, shape: rng.standard_normal(shape),
    "smooth over embeddings": smooth,
    "skewed": skewed,
    "wider at one end": uneven,
}


def data_sets(noise: str, prompts: int, effect: float, *, latent: float = 1.0, seed: int = 0) -> np.ndarray:
    """The ln mean |h| of `SETS` experiments, (P, S, T, E, X): the embedding's profile rises by `effect` from end to end.

    Prompts differ by 0.3 in level, by `SPREAD` in what the embedding does to them and by as much in what the latent does;
    cells by 0.05.
    """
    rng = np.random.default_rng([seed, prompts, int(1000 * effect)])
    ramp = np.linspace(0.0, 1.0, GRID)
    values = 0.05 * rng.standard_normal((prompts, SEEDS, GRID, GRID, SETS))
    values += 0.3 * rng.standard_normal((prompts, 1, 1, 1, SETS))
    values += latent * ramp[:, None, None] + SPREAD * rng.standard_normal((prompts, 1, GRID, 1, SETS))
    return values + effect * ramp[:, None] + SPREAD * NOISES[noise](rng, (prompts, 1, 1, GRID, SETS))


def judge(values: np.ndarray) -> dict[str, np.ndarray]:
    """What the analysis says of each data set, as if it had one channel; the rule of `causal_verdict`."""
    profile = values.mean(axis=(1, 2))
    effect = inference.largest_difference(profile, along=np.linspace(0.0, 1.0, GRID))
    flips = inference.sign_flip_vectors(profile - profile.mean(axis=1, keepdims=True), resamples=999)
    rejected = flips.p_value <= 0.05
    return {
        "rejected": rejected,
        "labels": inference.permute_within(profile, resamples=999).p_value <= 0.05,
        "supported": rejected & (effect.low > SMALLEST_EFFECT),
        "not supported": effect.high < SMALLEST_EFFECT,
        "low": effect.low,
        "high": effect.high,
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
    for noise in NOISES:
        for n in REPLICATES[:3]:
            found = judge(data_sets(noise, n, 0.0))
            cells = (
                rate(found["rejected"]),
                rate(found["labels"]),
                rate(found["supported"]),
                f"{found['not supported'].mean():.1%}",
            )
            rows.append(f"| {noise} | {n} | " + " | ".join(cells) + " |")
    return rows


def at_margin() -> list[str]:
    rows = ["| prompts' own profiles | prompts | called supported | called not supported | interval holds the truth |"]
    rows.append("|---|---:|---:|---:|---:|")
    for noise in NOISES:
        for n in REPLICATES[:3]:
            found = judge(data_sets(noise, n, SMALLEST_EFFECT, seed=1))
            held = (found["low"] <= SMALLEST_EFFECT) & (found["high"] >= SMALLEST_EFFECT)
            rows.append(
                f"| {noise} | {n} | {rate(found['supported'])} | {rate(found['not supported'])} | {held.mean():.1%} |"
            )
    return rows


def power() -> list[str]:
    rows = ["| effect, ln units | " + " | ".join(f"{n} prompts" for n in REPLICATES) + " |"]
    rows.append("|---:|" + "---:|" * len(REPLICATES))
    curves = np.zeros((2, len(REPLICATES), len(EFFECTS)))
    for j, effect in enumerate(EFFECTS):
        for i, n in enumerate(REPLICATES):
            found = judge(data_sets("independent", n, effect, seed=2))
            curves[:, i, j] = found["supported"].mean(), found["not supported"].mean()
        cells = (f"{curves[0, i, j]:.1%} / {curves[1, i, j]:.1%}" for i in range(len(REPLICATES)))
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


def planted(count: int = 40) -> list[str]:
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
                found = inference.bootstrap(drawn, function, resamples=1000, method=method)
                cells.append(np.mean((found.low <= truth) & (truth <= found.high)))
            rows.append(f"| {name} | {n} | " + " | ".join(f"{c:.1%}" for c in cells) + " |")
    for effect in (0.5, 0.1):
        for n in REPLICATES[:3]:
            drawn = data_sets("independent", n, effect, seed=3)[..., :300]
            truth = share_truth(effect)
            cells = []
            for method in METHODS:
                names, found, _ = shares(drawn, resamples=500, method=method)
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
    "power": ("Power: called supported / called not supported, by effect and prompts", power),
    "planted": ("Planted models", planted),
    "coverage": ("Coverage of 95 % intervals, by method", coverage),
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
