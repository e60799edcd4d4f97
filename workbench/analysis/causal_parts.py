"""What `causal` computes of each column of cells, and how it is put into the result.

Legend: P replicates (prompts), S the other kind of sample (seeds), T latents, E embeddings, L layers, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis import inference
from workbench.analysis.decompose import shares
from workbench.analysis.inference import Floats, Interval
from workbench.analysis.visits import TEXT

MAIN = ("embedding", "latent")
"""The two factors that have an order."""


class Ask:
    """What is computed of an array (P, S, T, E, ...), and with which options."""

    def __init__(
        self, sigmas: Floats, names: dict[str, str], confidence: float, resamples: int, permutations: int, seed: int
    ) -> None:
        self.sigmas, self.names, self.confidence = sigmas, names, confidence
        self.permutations, self.seed = permutations, seed
        self.bootstrap: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
        self.factors: list[str] = []

    def of(self, values: Floats, dims: tuple[str, ...]) -> dict[str, tuple[tuple[str, ...], Any, str]]:
        """Variables by name: dimensions, values or interval, description."""
        n, others, rest = values.shape[0], values.shape[1], values.shape[4:]
        flat = values.reshape(*values.shape[:4], -1)
        factors, share, deviation = shares(flat, **self.bootstrap)
        self.factors = [":".join(self.names.get(part, part) for part in name.split(":")) for name in factors]
        absent = [("other" in f.split(":") and others < 2) or ("replicate" in f.split(":") and n < 2) for f in factors]
        per = ("factor", *dims)

        def shaped(interval: Interval) -> Interval:  # what was not varied has no share, not a share of 0
            blank = [np.where(np.asarray(absent)[:, None], np.nan, part) for part in interval]
            return Interval(*(part.reshape(len(factors), *rest) for part in blank))

        p = np.full((3, len(factors), *rest), np.nan)
        for name, test in self._tests(values).items():
            if test is not None:
                p[:2, factors.index(name)] = test.p_value, test.p_corrected
        for name, axes in (("embedding", (1, 2)), ("latent", (1, 3))):
            labels = inference.permute_within(values.mean(axis=axes), resamples=self.permutations, seed=self.seed)
            p[2, factors.index(name)] = labels.p_value
        return {
            "share": (per, shaped(share), "share of the variance of ln mean |h| over cells"),
            "deviation": (per, shaped(deviation), "standard deviation of ln mean |h|"),
            "p_value": (per, p[0], "permutation test"),
            "p_corrected": (per, p[1], "permutation test, family-wise"),
            "p_labels": (per, p[2], "permutation of labels inside replicates"),
            **self.main(values, factors, dims),
        }

    def main(
        self, values: Floats, factors: list[str], dims: tuple[str, ...]
    ) -> dict[str, tuple[tuple[str, ...], Any, str]]:
        """Largest difference and trend of the two factors that have an order."""
        rest = values.shape[4:]
        x = self.sigmas - self.sigmas.mean()
        scale = np.ptp(self.sigmas) / (x**2).sum()
        out = {kind: np.full((3, len(factors), *rest), np.nan) for kind in ("effect", "effect_near", "trend")}
        for name in MAIN:
            profile = values.mean(axis=(1, 2) if name == "embedding" else (1, 3))
            at = factors.index(name)
            for kind, shape in (("effect", profile), ("effect_near", near(values, name))):
                out[kind][:, at] = inference.largest_difference(shape, confidence=self.confidence, along=self.sigmas)
            line = np.tensordot(profile, x * scale, axes=(1, 0))
            out["trend"][:, at] = inference.bootstrap_mean(line, **self.bootstrap)
        per = ("factor", *dims)
        return {
            "effect": (per, Interval(*out["effect"]), "largest difference of ln mean |h| between two levels"),
            "effect_near": (per, Interval(*out["effect_near"]), "the same, from neighbouring cells only"),
            "trend": (
                per,
                Interval(*out["trend"]),
                "difference of ln mean |h| from the cleanest to the noisiest level",
            ),
        }

    def _tests(self, values: Floats) -> dict[str, inference.Permuted | None]:
        """The permutation tests; `docs/methods.md` says which null hypothesis each has."""
        options: dict[str, Any] = {"resamples": self.permutations, "seed": self.seed}
        both = values.mean(axis=(2, 3))
        by = {"embedding": values.mean(axis=(1, 2)), "latent": values.mean(axis=(1, 3))}
        joint = values.mean(axis=1)
        joint = joint - joint.mean(axis=1, keepdims=True)
        joint = joint - joint.mean(axis=2, keepdims=True)
        return {
            **{
                name: inference.sign_flip_vectors(p - p.mean(axis=1, keepdims=True), **options)
                for name, p in by.items()
            },
            "embedding:latent": inference.sign_flip_vectors(joint.reshape(len(joint), -1, *joint.shape[3:]), **options),
            "replicate": (
                inference.permute_within(np.swapaxes(both, 0, 1), **options) if min(both.shape[:2]) > 1 else None
            ),
            "other": inference.permute_within(both, **options) if both.shape[1] > 1 else None,
        }


def near(values: Floats, factor: str) -> Floats:
    """Profile of one factor along the trajectory from cells next to it, where latent and embedding differ by one step.

    Between two steps of the grid, what one factor does is averaged over the other's being at the first and at the second;
    the profile adds that up. Of both factors together they add up to the trajectory itself. From (P, S, T, E, ...) to (P, T, ...).
    """
    inside = values.mean(axis=1)
    at = np.arange(inside.shape[1] - 1)
    own, later = inside[:, at, at], inside[:, at + 1, at + 1]
    ahead, behind = inside[:, at, at + 1], inside[:, at + 1, at]  # the embedding is ahead, or the latent
    steps = (ahead - own + later - behind) / 2.0
    steps = steps if factor == "embedding" else (behind - own + later - ahead) / 2.0
    return np.concatenate([np.zeros_like(steps[:, :1]), np.cumsum(steps, axis=1)], axis=1)


def put(
    result: xr.Dataset,
    end: str,
    variables: dict[str, tuple[tuple[str, ...], Any, str]],
    dims: tuple[str, ...],
    ask: Ask,
    *,
    prefix: str = "",
) -> None:
    """Add variables to a result, with `end` after their names and bounds beside them."""
    if "factor" not in result.coords:
        result.coords["factor"] = np.asarray(ask.factors, dtype=TEXT)
    for name, (per, values, text) in variables.items():
        parts = zip(("", "_low", "_high"), values, strict=True) if isinstance(values, Interval) else [("", values)]
        for suffix, array in parts:
            result[f"{prefix}{name}{end}{suffix}"] = (per, array, {"long_name": text + suffix.replace("_", ", ")})


def put_effects(result: xr.Dataset, name: str, values: Floats, dims: tuple[str, ...], ask: Ask, text: str) -> None:
    """Add the largest difference of both main factors alone."""
    factors = [str(f) for f in result["factor"].values]
    per, interval, _ = ask.main(values, factors, dims)["effect"]
    for suffix, array in zip(("", "_low", "_high"), interval, strict=True):
        result[name + suffix] = (per, array, {"long_name": text + suffix.replace("_", ", ")})


def put_surface(result: xr.Dataset, logs: Floats, order: np.ndarray, ask: Ask) -> None:
    """Mean ln mean |h| over latents and embeddings, and its two marginal curves with intervals over replicates."""
    inside = logs.mean(axis=1)[:, order][:, :, order]  # P, T, E, L, C
    result["surface"] = (
        ("layer", "channel", "latent_sigma", "embedding_sigma"),
        np.moveaxis(inside.mean(axis=0), (0, 1), (2, 3)),
        {"long_name": "mean of ln mean |h|"},
    )
    for name, axis in (("embedding", 1), ("latent", 2)):
        interval = inference.bootstrap_mean(np.moveaxis(inside.mean(axis=axis), 1, -1), **ask.bootstrap)
        for suffix, array in zip(("", "_low", "_high"), interval, strict=True):
            text = f"mean of ln mean |h| by {name}" + suffix.replace("_", ", ")
            result[f"{name}_profile{suffix}"] = (("layer", "channel", f"{name}_sigma"), array, {"long_name": text})
