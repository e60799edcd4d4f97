"""Whether the timestep embedding modulates the massive activations: embedding and latent exchanged independently.

Along a trajectory the timestep embedding and the noise in the latent go together. In a timestep-swap experiment the
embedding of every step goes in with the latent of every step, so the two can be told apart. This is the only analysis
whose `supported` says that the timestep embedding modulates massive activations.

Legend: P replicates (prompts), S the other kind of sample (seeds), T latents, E embeddings, L layers, C channels, X columns.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis import inference
from workbench.analysis.causal_verdict import channel_verdicts, overall_verdict
from workbench.analysis.decompose import shares
from workbench.analysis.experiment import Experiment, diagonal
from workbench.analysis.inference import Floats, Interval
from workbench.analysis.locate import locate, located_channels
from workbench.analysis.mediation import mediation
from workbench.analysis.single_factor import single_factor
from workbench.analysis.visits import TEXT, Visits
from workbench.errors import AnalysisError

__all__ = ["SMALLEST_EFFECT", "causal", "diagonal"]

SMALLEST_EFFECT = 0.1
"""Smallest largest difference of ln mean |h| between any two embeddings that counts: a change by a tenth."""

SHOWN_IF_NONE = 3
"""How many of the largest channels are described when none is massive."""

MAIN = ("embedding", "latent")


def causal(
    experiment: xr.Dataset,
    *,
    channels: Sequence[int] | None = None,
    branch: str = "cond",
    prompt_swap: xr.Dataset | None = None,
    seed_swap: xr.Dataset | None = None,
    smallest_effect: float = SMALLEST_EFFECT,
    alpha: float = 0.05,
    confidence: float = 0.95,
    resamples: int = 2000,
    permutations: int = 1999,
    seed: int = 0,
) -> xr.Dataset:
    """Split the variance of ln mean |h| into what the embedding, the latent, the prompt and the seed do.

    Parameters
    ----------
    experiment : xr.Dataset
        A timestep-swap store (`docs/schema.md`); statistics suffice.
    channels : sequence of int, optional
        Channels by label. Default: those that `locate` finds on the cells in which nothing was exchanged; if it finds
        none, the largest three, and the verdict stays `undecided`.
    branch : str
        Branch to look at.
    prompt_swap, seed_swap : xr.Dataset, optional
        Stores of the single-factor runs, same channels.
    smallest_effect : float
        The margin: in ln units, the smallest largest difference between two embeddings that counts.
    alpha : float
        Level of the permutation test, family-wise over channels.
    confidence, resamples, permutations, seed
        Of the intervals and tests.

    Returns
    -------
    xr.Dataset
        `share(factor, layer, channel)` of the variance over all cells, in [0, 1]; `deviation`, its square root in ln
        units; `effect(factor, layer, channel)`, for `embedding` and `latent`: the largest difference between any two of
        its levels, in ln units; `trend`, the signed difference from the cleanest to the noisiest level by a straight
        line in sigma; all with `_low` and `_high`. `p_value`, `p_corrected` (family-wise over layers and channels) by
        flipping the signs of whole prompts' profiles (prompt and seed: by permuting them); `p_labels`, by permuting labels
        inside prompts, for `embedding` and `latent`.
        `surface(layer, channel, latent_sigma, embedding_sigma)`, the mean ln mean |h|, with `embedding_profile` and
        `latent_profile`, its means over the other, with intervals. The same with `_overall` and without `layer`: of the
        mean over the blocks in which the channel is massive (all, if in none), family-wise over channels; this decides.
        `control_…(factor, layer)`, the same of the median channel; `specific_effect`, of ln ratio to the median.
        `channel_verdict(channel)` and `channel_reason(channel)`. With mediation cells: `mediated(at, swap, swap_block,
        channel)` and the rest of `mediation`. With single-factor stores: what `single_factor` says, prefixed
        `prompt_swap_` and `seed_swap_`. Verdict in the attributes.

    Raises
    ------
    AnalysisError
        If this is no timestep-swap store or not a whole one, its grid has one timestep, the list of channels is empty or
        names one that was not recorded, a magnitude is 0, or no prompt is complete and finite.
    """
    if not smallest_effect > 0:
        raise AnalysisError(f"smallest_effect={smallest_effect!r} must be above 0, in ln units; 0.1 is a tenth.")
    found = Experiment(experiment, branch)
    cells_TE = found.cells_TE
    chosen, source, massive_LC = choose(experiment, found.visits, channels, branch)
    at_C = np.asarray([_labels(found.visits).index(channel) for channel in chosen])
    logs = _by_replicate(found.logs(cells_TE, at_C), found)
    whole = not found.visits.channels_missing
    median = _by_replicate(found.logs(cells_TE, None), found) if whole else None
    weights_LC = _massive_blocks(massive_LC, found.visits.blocks)

    order = np.argsort(found.sigmas, kind="stable")
    result = xr.Dataset(
        coords={
            **found.visits.coords("layer"),
            "channel": np.asarray(chosen, dtype=np.int64),
            "latent_sigma": found.sigmas[order],
            "embedding_sigma": found.sigmas[order],
        }
    )
    ask = _Ask(found.sigmas, _names(found), confidence, resamples, permutations, seed)
    per = ("layer", "channel")
    _put(result, "", ask.of(logs, per), per, ask)
    _put(result, "_overall", ask.of(np.einsum("pstelc,lc->pstec", logs, weights_LC), ("channel",)), ("channel",), ask)
    if median is not None:
        _put(result, "", ask.of(median[..., 0], ("layer",)), ("layer",), ask, prefix="control_")
        specific = logs - median
        both = (specific, per, ""), (np.einsum("pstelc,lc->pstec", specific, weights_LC), ("channel",), "_overall")
        for values, dims, end in both:
            _effects(result, f"specific_effect{end}", values, dims, ask, "largest difference of ln ratio to the median")
    _surface(result, logs, order, ask)
    result["massive"] = (per, massive_LC, {"long_name": "massive at this layer on the diagonal, by workbench"})
    if set(found.swap) - {"none", "embedding"}:
        result = result.merge(mediation(found, at_C, chosen, smallest_effect=smallest_effect, **ask.bootstrap))
    for name, store in (("prompt_swap", prompt_swap), ("seed_swap", seed_swap)):
        if store is not None:
            single = single_factor(
                store,
                channels=chosen,
                branch=branch,
                smallest_effect=smallest_effect,
                massive=result["massive"],
                **ask.bootstrap,
            )
            result = result.merge(
                single.rename({str(n): f"{name}_{n}" for n in single.data_vars}), compat="no_conflicts"
            )
            result.attrs[f"{name}_reason"] = single.attrs["verdict_reason"]
    kept = dict(result.attrs)
    result.attrs = {
        **found.visits.attrs("causal"),
        **ask.bootstrap,
        **kept,
        "experiment": found.name,
        "permutations": permutations,
        "alpha": alpha,
        "criterion": source,
        "grid": len(found.sigmas),
        "prompts_left_out": found.left_out_prompts,
        "parameters": json.dumps(
            {"channels": chosen, "smallest_effect": smallest_effect, "alpha": alpha}, sort_keys=True
        ),
        "smallest_effect": smallest_effect,
    }
    channel_verdicts(result)
    result.attrs["verdict"], result.attrs["verdict_reason"] = overall_verdict(result)
    return result


def choose(
    experiment: xr.Dataset, visits: Visits, channels: Sequence[int] | None, branch: str
) -> tuple[list[int], str, np.ndarray]:
    """Labels of the channels, where they come from, and at which layers they are massive; (L, C)."""
    labels = _labels(visits)
    given = None if channels is None else [int(channel) for channel in channels]
    if given is not None:
        unknown = [channel for channel in given if channel not in labels]
        if unknown or not given or len(set(given)) != len(given):
            raise AnalysisError(
                f"channels={given}: "
                + ("the set is empty; " if not given else "")
                + f"give each channel once, from {labels[0]} to {labels[-1]} as recorded"
                + (f"; unknown: {unknown}." if unknown else ", or leave channels out to take those that locate finds.")
            )
    if visits.channels_missing:
        if given is None:
            visits.need_all_channels()
        assert given is not None
        return given, "channels given by the caller", np.zeros((len(visits.layers), len(given)), dtype=bool)
    found = locate(diagonal(experiment), branch=branch, resamples=1)
    located, source = (
        located_channels(found),
        f"{found.attrs['criterion']} (version {found.attrs['criterion_version']})",
    )
    if given is not None:
        chosen, source = given, "channels given by the caller"
    elif located:
        chosen = located
    else:
        strength = found["ratio_to_median"].values[visits.blocks].mean(axis=0)
        chosen = [labels[i] for i in np.argsort(-strength, kind="stable")[:SHOWN_IF_NONE]]
        source = "none massive; the largest are shown"
    massive = found["massive"].sel(criterion=found.attrs["criterion"], channel=chosen)
    return chosen, source, np.asarray(massive.transpose("layer", "channel").values, dtype=bool)


def _labels(visits: Visits) -> list[int]:
    return [int(label) for label in visits.recording["channel"].values]


def _names(found: Experiment) -> dict[str, str]:
    """What the axes of replicates and of the other kind of sample are called."""
    return {"replicate": found.visits.replicate, "other": "seed" if found.visits.replicate == "prompt" else "prompt"}


def _by_replicate(values_PS: Floats, found: Experiment) -> Floats:
    """Replicates first: where there is one prompt, its seeds are the replicates."""
    return values_PS if found.visits.replicate == "prompt" else np.moveaxis(values_PS, 1, 0)


def _massive_blocks(massive_LC: np.ndarray, blocks_L: np.ndarray) -> Floats:
    """Weights of a mean over the blocks in which a channel is massive, over all blocks where it is in none; (L, C)."""
    used = massive_LC & blocks_L[:, None]
    used = np.where(used.any(axis=0), used, blocks_L[:, None] if blocks_L.any() else True)
    return np.asarray(used / used.sum(axis=0), dtype=np.float64)


class _Ask:
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
        out = {"effect": np.full((3, len(factors), *rest), np.nan), "trend": np.full((3, len(factors), *rest), np.nan)}
        for name in MAIN:
            profile = values.mean(axis=(1, 2) if name == "embedding" else (1, 3))
            at = factors.index(name)
            out["effect"][:, at] = inference.largest_difference(profile, confidence=self.confidence, along=self.sigmas)
            line = np.tensordot(profile, x * scale, axes=(1, 0))
            out["trend"][:, at] = inference.bootstrap_mean(line, **self.bootstrap)
        per = ("factor", *dims)
        return {
            "effect": (per, Interval(*out["effect"]), "largest difference of ln mean |h| between two levels"),
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


def _put(
    result: xr.Dataset,
    end: str,
    variables: dict[str, tuple[tuple[str, ...], Any, str]],
    dims: tuple[str, ...],
    ask: _Ask,
    *,
    prefix: str = "",
) -> None:
    if "factor" not in result.coords:
        result.coords["factor"] = np.asarray(ask.factors, dtype=TEXT)
    for name, (per, values, text) in variables.items():
        parts = zip(("", "_low", "_high"), values, strict=True) if isinstance(values, Interval) else [("", values)]
        for suffix, array in parts:
            result[f"{prefix}{name}{end}{suffix}"] = (per, array, {"long_name": text + suffix.replace("_", ", ")})


def _effects(result: xr.Dataset, name: str, values: Floats, dims: tuple[str, ...], ask: _Ask, text: str) -> None:
    factors = [str(f) for f in result["factor"].values]
    per, interval, _ = ask.main(values, factors, dims)["effect"]
    for suffix, array in zip(("", "_low", "_high"), interval, strict=True):
        result[name + suffix] = (per, array, {"long_name": text + suffix.replace("_", ", ")})


def _surface(result: xr.Dataset, logs: Floats, order: np.ndarray, ask: _Ask) -> None:
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
