"""Data sets with known answers for `benchmarks.causal_rates`, at the level of ln mean |h|.

Legend: P prompts, S seeds, T latents, E embeddings, L blocks, X data sets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

GRID, SEEDS, SPREAD = 5, 2, 0.1
SIGMAS = np.linspace(0.0, 1.0, GRID)

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


SHAPES = {"ramp": SIGMAS, "step": (SIGMAS >= 0.5).astype(float)}
"""What the embedding does, from 0 to 1."""


def normal_slopes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Prompts do not differ in how much the embedding moves them (but in their own profiles)."""
    return np.ones(shape)


def skewed_slopes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Log-normal sizes of the effect with mean 1: a few prompts are moved much, most little."""
    return np.exp(rng.standard_normal(shape) - 0.5)


def data_sets(
    prompts: int,
    effect: float,
    *,
    noise: str = "independent",
    spread: float = SPREAD,
    shape: str = "ramp",
    slopes: Noise = normal_slopes,
    sets: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """The ln mean |h| of experiments, (P, S, T, E, 1, X): the embedding moves it by `effect` in the mean over prompts.

    The latent always has an effect of 1 from end to end. Prompts differ by 0.3 in level, by `spread` in what the embedding does
    to them at each step, and by 0.1 in what the latent does; cells by 0.05.
    """
    rng = np.random.default_rng([seed, prompts, int(1000 * effect)])
    values = 0.05 * rng.standard_normal((prompts, SEEDS, GRID, GRID, sets))
    values += 0.3 * rng.standard_normal((prompts, 1, 1, 1, sets))
    values += SIGMAS[:, None, None] + SPREAD * rng.standard_normal((prompts, 1, GRID, 1, sets))
    values += effect * slopes(rng, (prompts, 1, 1, 1, sets)) * SHAPES[shape][:, None]
    own = spread * NOISES[noise](rng, (prompts, 1, 1, GRID, sets)) if spread else 0.0
    return np.asarray(values + own)[:, :, :, :, None]


def cancelling(kind: str, prompts: int, *, sets: int = 500, spread: float = 0.05) -> np.ndarray:
    """Effects that are small in the mean over latents and blocks, and not small in some; (P, S, T, E, L, X)."""
    base = data_sets(prompts, 0.0, spread=spread, sets=sets, seed=4)
    centre = SIGMAS - 0.5
    if kind == "0.8 at the end latents, of opposite sign":
        return base + (1.6 * centre[:, None] * centre)[:, :, None, None]
    if kind == "0.4 with one latent of five":
        return base + (0.4 * (SIGMAS[:, None] == 1.0) * SIGMAS)[:, :, None, None]
    assert kind == "0.5 in one block, -0.5 in the next", kind
    return np.concatenate([base + 0.5 * SIGMAS[:, None, None], base - 0.5 * SIGMAS[:, None, None]], axis=-2)


CANCELLING = (
    "0.8 at the end latents, of opposite sign",
    "0.5 in one block, -0.5 in the next",
    "0.4 with one latent of five",
)


def units(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Deviations of units with standard deviation 1."""
    return {
        "normal": lambda: rng.standard_normal(shape),
        "uniform": lambda: rng.uniform(-1.0, 1.0, shape) * np.sqrt(3.0),
        "Laplace": lambda: rng.laplace(size=shape) / np.sqrt(2.0),
        "log-normal": lambda: skewed(rng, shape),
    }[kind]()
