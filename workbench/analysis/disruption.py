"""What a model's massive activations carry: fine detail, content, or no more than anything else of their size.

Paper A (Gan et al., arXiv 2510.11538) says that zeroing them loses local detail and leaves the semantics; paper C (Turri et
al., arXiv 2605.13974) that it destroys the picture, and that they carry semantics. Both compare with other channels that
hold far less. Here every loss is set against as many other channels and against an equal norm elsewhere, on one footing
for detail and content, and "no loss" has to be supported by an equivalence test. `docs/methods.md` gives the rules.

Legend: S samples, R replicates (prompts), K conditions, E cells (layer × window), D kinds of disruption, M measures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from workbench.analysis import inference
from workbench.analysis.disruption_verdict import ASPECTS, SHARES, WHOLE, Part, Rules, against, conclude
from workbench.analysis.disruption_words import reason
from workbench.analysis.visits import TEXT, version
from workbench.errors import AnalysisError

MARGINS = {"low_pass_similarity": 0.05, "recognised": 0.1}
"""Largest loss, in the unit of the measure, with which the content counts as kept. Ours: a correlation of 0.95 of the
blurred images, and one more of ten pictures not recognised."""

SMALLEST = 0.1
"""Smallest loss of detail that counts, of each measure, where 1 is the difference to another prompt's picture."""

NORM_TOLERANCE = 0.1
"""How far the norm of a control, as the recording has it, may be from the massive channels', as a share, to count as equal."""

MOST_LOST = 0.1
"""Nothing is analysed if more than this share of the undisturbed samples is not finite; other such samples are left out."""


def disruption(
    measured: xr.Dataset,
    *,
    detail: Sequence[str] | None = None,
    margins: Mapping[str, float] | None = None,
    smallest: float = SMALLEST,
    norm_tolerance: float = NORM_TOLERANCE,
    alpha: float = 0.05,
    confidence: float = 0.95,
    resamples: int = 2000,
    flips: int = 4999,
    seed: int = 0,
) -> xr.Dataset:
    """Compare what massive channels and their controls change in the images.

    Parameters
    ----------
    measured : xr.Dataset
        From `workbench.sampling.disrupt`: `value(condition, sample, measure)`, `other(sample, measure)`,
        `removed_norm(condition, sample)`, `finite(condition, sample)`, with `kind`, `layer`, `window`, `draw` of each
        condition (one of kind ``none``), and `coverage`, its norm in the recording over that of the massive channels.
    detail : sequence of str, optional
        Measures of detail. Default: ``edge_energy`` and the highest ``band_power``.
    margins : mapping, optional
        Content measure → largest loss, in its unit, with which it counts as kept, and largest loss above a control's that
        counts as no more. Default: `MARGINS`, as far as they were measured.
    smallest : float
        The same for every measure of detail, on the common footing.
    norm_tolerance : float
        See `NORM_TOLERANCE`.
    alpha : float
        Level of the tests, family-wise over layers.
    confidence, resamples : float, int
        Of the bootstrap intervals over prompts.
    flips : int
        Sign flips of each permutation test.
    seed : int
        Of bootstrap and flips.

    Returns
    -------
    xr.Dataset
        Draws of a kind are averaged inside a sample, seeds inside a prompt. A sample that is not finite counts as lost: a
        loss of 1 in every measure, and not recognised; `collapsed(cell, kind)` is the share of those. ``measure`` holds
        what was measured and the two composites ``detail`` and ``content``, which are shown and not judged. With ``_low`` and ``_high``: `effect(cell, kind, measure)`, difference to the
        undisturbed sample in the measure's unit; `loss(cell, kind, measure)`, the same on the common footing: as a share
        of `scale(measure)`, the mean absolute difference to another prompt's picture, positive where detail or content is
        lost or the distance to the data grows; `loss_per_norm`, per unit of removed L2 norm;
        `contrast(cell, control, measure)`, loss of the massive channels minus the control's, with `p_value` (sign flips,
        one-sided: more is lost, where a control that gained counts as 0) and `p_corrected` (largest statistic over the
        layers, or over the windows); `contrast_per_norm`; `detail_minus_content(cell, kind)`. Further `norm(cell, kind)` and
        `norm_ratio(cell, control)` as measured, `norm_planned(cell, control)` as the recording has it (as measured, where
        that is not known); `draws(cell, kind)`; `condition_effect(condition, measure)` of each draw;
        `content_kept(cell, kind)`; `state(cell, measure)` and `compared(cell, control, measure)`, the answers of each
        measure; `outcome(control_set, cell)` in words and `states(control_set, cell)`, what it rests on. Attributes:
        `verdict`, `verdict_reason`, `agrees_with` against controls of equal norm, `verdict_equal_number` and
        `agrees_with_equal_number` against the papers'.

    Raises
    ------
    AnalysisError
        If variables or the undisturbed or the massive condition are missing, a named measure was not measured, or too few
        undisturbed samples are finite.
    """
    if not (0 < alpha < 0.5 and smallest > 0 and norm_tolerance >= 0):
        raise AnalysisError(
            f"alpha={alpha}, smallest={smallest}, norm_tolerance={norm_tolerance}: give numbers above 0."
        )
    table = _Table(measured)
    names = table.measures
    wanted = dict(margins) if margins is not None else {k: v for k, v in MARGINS.items() if k in names}
    chosen: dict[str, list[str]] = {"detail": _detail(detail, names), "content": list(wanted)}
    for listed in chosen.values():
        _known(listed, names)
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}

    raw_SEDM = table.value_SEDM - table.plain_SM[:, None, None]
    scale_M = table.scale_M
    with np.errstate(divide="ignore", invalid="ignore"):
        loss_SEDM = np.where(scale_M > 0, table.sign_M * raw_SEDM / scale_M, np.nan)
    omitted = [f"{names[i]}: pictures of other prompts do not differ in it, so it has no footing"
               for i in np.flatnonzero(~(scale_M > 0))]  # fmt: skip
    composite = []
    judged = {aspect: [name for name in chosen[aspect] if scale_M[names.index(name)] > 0] for aspect in ASPECTS}
    for aspect in ASPECTS:
        at = [names.index(name) for name in judged[aspect]]
        nothing = np.full(loss_SEDM.shape[:3], np.nan)
        composite.append(loss_SEDM[..., at].mean(axis=-1) if at else nothing)
    loss_SEDM = np.concatenate([loss_SEDM, np.stack(composite, axis=-1)], axis=-1)
    raw_SEDM = np.concatenate([raw_SEDM, -np.stack(composite, axis=-1)], axis=-1)

    columns = [table.column(loss_SEDM[..., m], raw_SEDM[..., m]) for m in range(len(names) + len(ASPECTS))]

    result = _frame(table, [*names, *ASPECTS])
    result["scale"] = (
        "measure",
        np.r_[scale_M, 1.0, 1.0],
        {"long_name": "mean |difference| to another prompt's picture"},
    )
    result["replicates"] = ("measure", [len(column.loss_RED) for column in columns])
    result["norm"] = (
        ("cell", "kind"),
        _mean(table.by_prompt(table.norm_SED, np.ones(len(table.prompts), dtype=bool))),
        {"long_name": "L2 norm removed or added, per token"},
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = result["norm"].values[:, 1:] / result["norm"].values[:, :1]
    result["norm_ratio"] = (("cell", "control"), ratio, {"long_name": "norm of the control / of the massive channels"})
    result["norm_planned"] = (
        ("cell", "control"),
        np.where(np.isfinite(table.coverage_ED[:, 1:]), table.coverage_ED[:, 1:], ratio),
        {"long_name": "the same, as the recording has it"},
    )
    result["draws"] = (("cell", "kind"), table.draws_ED)
    result["collapsed"] = (("cell", "kind"), table.collapsed_ED, {"long_name": "share of samples that are not finite"})
    result["condition_effect"] = (
        ("condition", "measure"),
        np.concatenate([table.condition_effect(), np.full((len(table.condition), 2), np.nan)], axis=1),
        {"long_name": "difference to the undisturbed sample, of each draw"},
    )

    per = ("cell", "kind", "measure")
    _put(result, "effect", per, [c.raw_RED for c in columns], options, "difference to the undisturbed sample")
    _put(result, "loss", per, [c.loss_RED for c in columns], options, "loss / difference to another prompt's picture")
    _put(result, "loss_per_norm", per, [c.per_norm_RED for c in columns], options, "loss per unit of removed norm")
    whole_E = np.asarray([window == WHOLE for window in table.windows], dtype=bool)
    if len(table.kinds) > 1:
        per = ("cell", "control", "measure")
        contrasts = [c.loss_RED[:, :, :1] - c.loss_RED[:, :, 1:] for c in columns]
        _put(result, "contrast", per, contrasts, options, "loss of the massive channels − of the control")
        by_norm = [c.per_norm_RED[:, :, :1] - c.per_norm_RED[:, :, 1:] for c in columns]
        _put(result, "contrast_per_norm", per, by_norm, options, "the same per unit of removed norm")
        tests = _tests([against(c.loss_RED) for c in columns], whole_E, flips, seed)
        for name, values in zip(("p_value", "p_corrected"), tests, strict=True):
            result[name] = (per, values, {"long_name": "sign flips: the massive channels lose more"})
    both_SED = loss_SEDM[..., -2] - loss_SEDM[..., -1]
    balance = table.column(both_SED, both_SED).loss_RED[..., None]
    _put(result, "detail_minus_content", ("cell", "kind"), [balance[..., 0]], options, "loss of detail − of content")

    by_name = dict(zip(names, columns, strict=False))
    # Content is judged in the unit of its margin, detail on the common footing.
    parts = [Part(name, "detail", by_name[name].loss_RED, smallest) for name in judged["detail"]]
    parts += [
        Part(name, "content", by_name[name].loss_RED * scale_M[names.index(name)], wanted[name])
        for name in judged["content"]
    ]
    n = min(len(part.loss_RED) for part in parts) if parts else 0
    parameters = {
        "detail": chosen["detail"],
        "margins": wanted,
        "smallest": smallest,
        "alpha": alpha,
        "norm_tolerance": norm_tolerance,
        "flips": flips,
    }
    result.attrs = {
        **table.attrs(),
        **options,
        "n_replicates": n,
        "parameters": json.dumps(parameters, sort_keys=True),
        "omitted": [*table.omitted, *omitted],
    }
    whole = conclude(result, parts, whole_E, Rules(norm_tolerance, alpha, flips, seed), table.dropped)
    result.attrs["verdict_reason"] = reason(result, parts, whole, whole_E)
    return result


class _Column(NamedTuple):
    """One measure, replicates first; NaN in a cell and kind that was not run."""

    loss_RED: np.ndarray
    raw_RED: np.ndarray
    norm_RED: np.ndarray

    @property
    def per_norm_RED(self) -> np.ndarray:
        """Loss per unit of removed norm; NaN where none was removed."""
        with np.errstate(divide="ignore", invalid="ignore"):
            share = self.loss_RED / self.norm_RED
        return np.where(np.isfinite(share), share, np.nan)


class _Table:
    """The measured conditions as arrays: samples that are finite undisturbed, draws averaged."""

    def __init__(self, measured: xr.Dataset) -> None:
        for name in ("value", "other", "removed_norm", "finite"):
            if name not in measured:
                raise AnalysisError(
                    f"what was measured lacks `{name}`; pass the Dataset that `disrupt` returned, or `workbench.analysis.tables.open_table(path)`."
                )
        for name in ("kind", "layer", "window", "draw", "prompt", "measure_kind"):
            if name not in measured.coords:
                raise AnalysisError(f"what was measured lacks the coordinate `{name}`; pass what `disrupt` returned.")
        self.source = measured
        kinds = [str(kind) for kind in measured["kind"].values]
        self.omitted = [str(line) for line in measured.attrs.get("omitted", [])]
        value_KSM = measured["value"].transpose("condition", "sample", "measure").values.astype(float)
        other_SM = measured["other"].transpose("sample", "measure").values.astype(float)
        norm_KS = measured["removed_norm"].transpose("condition", "sample").values.astype(float)
        finite_KS = measured["finite"].transpose("condition", "sample").values.astype(bool)
        if "none" not in kinds:
            raise AnalysisError("there is no undisturbed condition (kind 'none'), so there is nothing to compare with.")
        plain = kinds.index("none")
        names = [str(name) for name in measured["condition"].values]
        labels = [(str(a), str(b)) for a, b in zip(measured["layer"].values, measured["window"].values, strict=True)]
        usable_S: np.ndarray = finite_KS[plain]
        if (~usable_S).mean() > MOST_LOST:
            raise AnalysisError(
                "too many of the undisturbed samples are not finite; use float32, or a lower guidance scale."
            )
        if not usable_S.all():
            self.omitted.append(f"{int((~usable_S).sum())} samples that are not finite undisturbed")
        finite_KS, norm_KS = finite_KS[:, usable_S], norm_KS[:, usable_S]
        kept, self.dropped = [], []
        for k, kind in enumerate(kinds):
            known = finite_KS[k] & np.isfinite(norm_KS[k])
            if kind == "none":
                continue
            if not known.any() and finite_KS[k].any():
                self.omitted.append(f"{names[k]}: no step of the run was in its window")
                if kind == "massive" and labels[k][1] == WHOLE:
                    self.dropped.append(labels[k][0])
                continue
            kept.append(k)
            norm_KS[k] = np.where(known, norm_KS[k], norm_KS[k][known].mean() if known.any() else np.nan)
            if not finite_KS[k].all():
                self.omitted.append(
                    f"{names[k]}: {(~finite_KS[k]).mean():.0%} of its samples are not finite; they count as lost"
                )
        self.n_recorded = len(usable_S)
        self.samples = np.flatnonzero(usable_S)
        self.prompts = [str(prompt) for prompt in measured["prompt"].values[usable_S]]
        self.measures = [str(name) for name in measured["measure"].values]
        self.kinds_of = np.asarray([str(kind) for kind in measured["measure_kind"].values])
        self.cells = list(dict.fromkeys(labels[k] for k in kept if kinds[k] == "massive"))
        if not self.cells:
            raise AnalysisError("there is no usable condition of kind 'massive', so there is nothing to analyse.")
        self.layers, self.windows = [cell[0] for cell in self.cells], [cell[1] for cell in self.cells]
        self.first = [labels.index(cell) for cell in self.cells]
        there = {kinds[k] for k in kept}
        self.kinds = ["massive", *(k for k in dict.fromkeys(kinds) if k in there and k != "massive")]
        self.condition = kept
        self.plain_SM, self.other_SM = value_KSM[plain][usable_S], other_SM[usable_S]
        self.scale_M = self.scale()
        self.sign_M = np.where(self.kinds_of == "distance", 1.0, -1.0)
        # A picture that is lost is as far from its own as another prompt's picture is, and is not recognised.
        lost_SM = self.plain_SM + self.sign_M * self.scale_M
        shares = [m for m, name in enumerate(self.measures) if name in SHARES]
        lost_SM[:, shares] = np.where(np.isfinite(self.plain_SM[:, shares]), 0.0, np.nan)
        self.value_KSM = np.where(finite_KS[..., None], value_KSM[:, usable_S], lost_SM)
        shape = (len(self.samples), len(self.cells), len(self.kinds))
        self.value_SEDM = np.full((*shape, len(self.measures)), np.nan)
        self.norm_SED = np.full(shape, np.nan)
        self.coverage_ED, self.collapsed_ED = np.full(shape[1:], np.nan), np.full(shape[1:], np.nan)
        self.draws_ED = np.zeros(shape[1:], dtype=np.int64)
        coverage_K = np.full(len(kinds), np.nan)
        if "coverage" in measured.coords:
            coverage_K = np.asarray(measured["coverage"].values, dtype=float)
        for e, cell in enumerate(self.cells):
            for d, kind in enumerate(self.kinds):
                draws = [k for k in kept if labels[k] == cell and kinds[k] == kind]
                if draws:
                    self.draws_ED[e, d] = len(draws)
                    self.value_SEDM[:, e, d] = self.value_KSM[draws].mean(axis=0)
                    self.norm_SED[:, e, d] = norm_KS[draws].mean(axis=0)
                    self.coverage_ED[e, d] = coverage_K[draws].mean()
                    if kind == "matched_random":  # what its channels hold beyond the norm is left to them
                        self.coverage_ED[e, d] = min(self.coverage_ED[e, d], 1.0)
                    self.collapsed_ED[e, d] = (~finite_KS[draws]).mean()
                else:
                    self.omitted.append(f"{kind} at {cell[0]}, {cell[1]}: no usable condition")

    def column(self, loss_SED: np.ndarray, raw_SED: np.ndarray) -> _Column:
        """Replicates of a measure, from the samples that have it in every cell and kind that was run."""
        rows = np.isfinite(raw_SED[:, self.draws_ED > 0]).all(axis=1)
        return _Column(*(self.by_prompt(values, rows) for values in (loss_SED, raw_SED, self.norm_SED)))

    def condition_effect(self) -> np.ndarray:
        """Mean difference to the undisturbed sample, of each condition by itself; shape (K, M)."""
        change_SKM = np.moveaxis(self.value_KSM[self.condition] - self.plain_SM, 0, 1)
        columns = []
        for m in range(change_SKM.shape[-1]):
            rows = np.isfinite(change_SKM[..., m]).all(axis=1)
            columns.append(_mean(self.by_prompt(change_SKM[..., m], rows)))
        return np.stack(columns, axis=-1)

    def by_prompt(self, values_SX: np.ndarray, rows_S: np.ndarray) -> np.ndarray:
        """Mean over the samples of each prompt, of these samples."""
        prompts = [prompt for prompt, row in zip(self.prompts, rows_S, strict=True) if row]
        if not prompts:
            return np.empty((0, *values_SX.shape[1:]))
        if (
            len(set(self.prompts)) > 1 and len(set(prompts)) == 1
        ):  # one prompt of several is one replicate, not its seeds
            return np.asarray(values_SX[rows_S].mean(axis=0, keepdims=True))
        return inference.by_prompt(values_SX[rows_S], prompts)[0]

    def scale(self) -> np.ndarray:
        """Mean absolute difference to another prompt's picture, per measure."""
        away_SM = np.abs(self.other_SM - self.plain_SM)
        return np.array([
            _mean(self.by_prompt(away_SM[:, [m]], np.isfinite(away_SM[:, m])))[0] for m in range(len(self.measures))
        ])  # fmt: skip

    def attrs(self) -> dict[str, Any]:
        """Where the result comes from."""
        several = len(set(self.prompts)) > 1
        counts = {self.prompts.count(prompt) for prompt in set(self.prompts)}
        seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        words = f"{len(set(self.prompts))} prompts × {seeds} seed{'s' if counts != {1} else ''}"
        kept: tuple[str, ...] = (
            "model_name",
            "settings",
            "design",
            "massive_channels",
            "plan",
            "recording_fingerprint",
        )
        kept = (*kept, "guidance_scale", "steps")
        plan = json.loads(self.source.attrs.get("plan", "{}"))
        return {
            **{key: self.source.attrs[key] for key in kept if key in self.source.attrs},
            "analysis": "disruption",
            "branch": plan.get("branches", "all"),
            "replicate": "prompt" if several else "seed",
            "replication": words if several else f"{len(self.prompts)} seeds of one prompt",
            "n_prompts": len(set(self.prompts)),
            "n_samples": len(self.prompts),
            "n_samples_recorded": self.n_recorded,
            "version": version(),
        }


def _detail(given: Sequence[str] | None, names: list[str]) -> list[str]:
    """Measures of detail: what is asked for, else edge energy and the power in the highest band."""
    if given is not None:
        return list(given)
    bands = [name for name in names if name.startswith("band_power_")]
    top = max(bands, key=lambda name: int(name.rsplit("_", 1)[1]), default=None)
    return [name for name in ("edge_energy", top) if name in names and name is not None]


def _known(wanted: list[str], names: list[str]) -> None:
    if unknown := [name for name in wanted if name not in names]:
        raise AnalysisError(f"{', '.join(unknown)} was not measured; there is {', '.join(names)}.")


def _mean(values_RX: np.ndarray) -> np.ndarray:
    return np.asarray(values_RX.mean(axis=0) if len(values_RX) else np.full(values_RX.shape[1:], np.nan))


def _frame(table: _Table, measures: list[str]) -> xr.Dataset:
    """Coordinates of the result."""
    source, first = table.source, table.first

    def of_cell(name: str) -> Any:
        return ("cell", source[name].values[first])

    extra = {name: of_cell(name) for name in ("block", "sigma_low", "sigma_high") if name in source.coords}
    named = {name: [str(v) for v in source[name].values] for name in ("unit", "label") if name in source.coords}
    return xr.Dataset(
        coords={
            "cell": np.asarray([f"{layer}, {window}" for layer, window in table.cells], dtype=TEXT),
            "layer": ("cell", np.asarray(table.layers, dtype=TEXT)),
            "window": ("cell", np.asarray(table.windows, dtype=TEXT)),
            **extra,
            "kind": np.asarray(table.kinds, dtype=TEXT),
            "control": np.asarray(table.kinds[1:], dtype=TEXT),
            "measure": np.asarray(measures, dtype=TEXT),
            "measure_kind": ("measure", np.asarray([*table.kinds_of, "composite", "composite"], dtype=TEXT)),
            **{
                name: ("measure", np.asarray([*texts, *({"label": ["loss of detail", "loss of content"]}.get(name, ["", ""]))], dtype=TEXT))
                for name, texts in named.items()
            },
            "condition": np.asarray([str(source["condition"].values[k]) for k in table.condition], dtype=TEXT),
        }
    )  # fmt: skip


def _put(
    result: xr.Dataset, name: str, dims: tuple[str, ...], columns: list[np.ndarray], options: dict[str, Any], text: str
) -> None:
    """Means over replicates with intervals; one column a measure, since not all measures have the same replicates."""
    parts = [inference.bootstrap_mean(values_RX, **options) for values_RX in columns]
    for i, suffix in enumerate(("", "_low", "_high")):
        stacked = np.stack([part[i] for part in parts], axis=-1)
        values = stacked if len(dims) == stacked.ndim else stacked[..., 0]
        result[name + suffix] = (dims, values, {"long_name": text + suffix.replace("_", ", ")})


def _tests(contrasts: list[np.ndarray], whole_E: np.ndarray, flips: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One-sided p-values of contrasts, alone and corrected over the layers (the windows), per control and measure."""
    shape = (*contrasts[0].shape[1:], len(contrasts))
    alone, corrected = np.full(shape, np.nan), np.full(shape, np.nan)
    for m, values_REQ in enumerate(contrasts):
        for family in (whole_E, ~whole_E):
            for q in range(shape[1]):
                at = np.flatnonzero(family & np.isfinite(values_REQ[:, :, q]).all(axis=0))
                if len(at) and len(values_REQ) >= inference.MINIMUM_SAMPLES:
                    found = inference.sign_flip(values_REQ[:, at, q], alternative="greater", resamples=flips, seed=seed)
                    alone[at, q, m], corrected[at, q, m] = found.p_value, found.p_corrected
    return alone, corrected
