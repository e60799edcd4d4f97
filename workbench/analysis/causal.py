"""Whether the timestep embedding modulates the massive activations: embedding and latent exchanged independently.

Along a trajectory the timestep embedding and the noise in the latent go together. In a timestep-swap experiment the
embedding of every step goes in with the latent of every step, so the two can be told apart. This is the only analysis
whose `supported` says that the timestep embedding modulates massive activations.

Legend: P replicates (prompts), S the other kind of sample (seeds), T latents, E embeddings, L layers, C channels, X columns.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from workbench.analysis.causal_parts import Ask, put, put_effects, put_surface
from workbench.analysis.causal_rule import Evidence, gather
from workbench.analysis.causal_verdict import channel_verdicts, overall_verdict
from workbench.analysis.experiment import Experiment, diagonal
from workbench.analysis.inference import Floats
from workbench.analysis.locate import locate, located_channels
from workbench.analysis.mediation import mediation
from workbench.analysis.single_factor import single_factor
from workbench.analysis.visits import Visits
from workbench.errors import AnalysisError

__all__ = ["SMALLEST_EFFECT", "causal", "diagonal"]

SMALLEST_EFFECT = 0.1
"""Smallest largest difference of ln mean |h| between any two embeddings that counts: a change by a tenth."""

SHOWN_IF_NONE = 3
"""How many of the largest channels are described when none is massive."""


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
        mean over the blocks in which the channel is massive (all, if in none), family-wise over channels.
        `effect_near`: as `effect`, from cells whose latent and embedding are at most one step of the grid apart.
        `effect_by_latent(latent_sigma, layer, channel)`: the embedding's effect with one latent held; `effect_worst(channel)`
        where its upper bound is largest among the blocks that count, and `effect_worst_latent_sigma`, `_layer`, where that is.
        `effect_overall_low_corrected`, `effect_worst_low_corrected`: lower bounds, family-wise. These decide (`causal_rule`).
        `control_…(factor, layer)`, the same of the median channel; `specific_effect`, of ln ratio to the median.
        `channel_verdict(channel)`, `channel_reason(channel)` and `channel_specific(channel)`: whether what the embedding moves
        is also the ratio to the median channel. With mediation cells: `mediated(at, swap, swap_block,
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
    counted_LC = _counted_blocks(massive_LC, found.visits.blocks)
    weights_LC = counted_LC / counted_LC.sum(axis=0)
    family = int((massive_LC & found.visits.blocks[:, None]).any(axis=0).sum())

    order = np.argsort(found.sigmas, kind="stable")
    result = xr.Dataset(
        coords={
            **found.visits.coords("layer"),
            "channel": np.asarray(chosen, dtype=np.int64),
            "latent_sigma": found.sigmas[order],
            "embedding_sigma": found.sigmas[order],
        }
    )
    ask = Ask(found.sigmas, _names(found), confidence, resamples, permutations, seed)
    per = ("layer", "channel")
    put(result, "", ask.of(logs, per), per, ask)
    put(result, "_overall", ask.of(np.einsum("pstelc,lc->pstec", logs, weights_LC), ("channel",)), ("channel",), ask)
    if median is not None:
        put(result, "", ask.of(median[..., 0], ("layer",)), ("layer",), ask, prefix="control_")
        specific = logs - median
        both = (specific, per, ""), (np.einsum("pstelc,lc->pstec", specific, weights_LC), ("channel",), "_overall")
        for values, dims, end in both:
            put_effects(
                result, f"specific_effect{end}", values, dims, ask, "largest difference of ln ratio to the median"
            )
        own = gather(specific, counted_LC, found.sigmas, confidence=confidence, family=family)
        ratio = {"long_name": "largest difference of ln ratio to the median, bound as of the effect"}
        result["specific_effect_overall_low_corrected"] = ("channel", own.low_corrected, ratio)
        result["specific_effect_worst_high"] = ("channel", own.at_worst.high, ratio)
    put_surface(result, logs, order, ask)
    evidence = gather(logs, counted_LC, found.sigmas, confidence=confidence, family=family)
    _put_places(result, evidence, order)
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
        "channels_massive": family if whole else -1,
        "grid": len(found.sigmas),
        "prompts_left_out": found.left_out_prompts,
        "parameters": json.dumps(
            {"channels": chosen, "smallest_effect": smallest_effect, "alpha": alpha}, sort_keys=True
        ),
        "smallest_effect": smallest_effect,
    }
    channel_verdicts(result, evidence)
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


def _put_places(result: xr.Dataset, evidence: Evidence, order: np.ndarray) -> None:
    """What the verdict rests on: the main effect corrected over channels, and the effect with each latent, after each layer."""
    per, text = ("latent_sigma", "layer", "channel"), "largest difference between two embeddings, ln units"
    for end, places, worst in zip(("", "_low", "_high"), evidence.places, evidence.at_worst, strict=True):
        note = end.replace("_", ", ")
        result[f"effect_by_latent{end}"] = (per, places[order], {"long_name": f"{text}, this latent held{note}"})
        where = "latent and counted block with the largest upper bound"
        result[f"effect_worst{end}"] = ("channel", worst, {"long_name": f"{text}, {where}{note}"})
    latent, layer = evidence.worst
    result["effect_worst_latent_sigma"] = ("channel", result["latent_sigma"].values[np.argsort(order)][latent])
    result["effect_worst_layer"] = ("channel", result["layer"].values[layer])
    for name, low in (("overall", evidence.low_corrected), ("worst", evidence.worst_low_corrected)):
        said = {"long_name": "lower bound of the embedding's effect, family-wise"}
        result[f"effect_{name}_low_corrected"] = ("channel", low, said)


def _labels(visits: Visits) -> list[int]:
    return [int(label) for label in visits.recording["channel"].values]


def _names(found: Experiment) -> dict[str, str]:
    """What the axes of replicates and of the other kind of sample are called."""
    return {"replicate": found.visits.replicate, "other": "seed" if found.visits.replicate == "prompt" else "prompt"}


def _by_replicate(values_PS: Floats, found: Experiment) -> Floats:
    """Replicates first: where there is one prompt, its seeds are the replicates."""
    return values_PS if found.visits.replicate == "prompt" else np.moveaxis(values_PS, 1, 0)


def _counted_blocks(massive_LC: np.ndarray, blocks_L: np.ndarray) -> np.ndarray:
    """The blocks in which a channel is massive, all blocks where it is in none; bool, (L, C)."""
    used = massive_LC & blocks_L[:, None]
    return np.asarray(np.where(used.any(axis=0), used, blocks_L[:, None] if blocks_L.any() else True), dtype=bool)
