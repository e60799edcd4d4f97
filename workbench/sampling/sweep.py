"""Sweep a Detail Guidance spec: every combination of layers, weights, channels, windows, from the same seeds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from workbench.analysis.matching import matched_channels
from workbench.analysis.tables import write_table
from workbench.errors import AnalysisError, SpecError, WorkbenchError
from workbench.models import Encode, layout_for, load_pipeline
from workbench.sampling.conditions import Condition, run_conditions
from workbench.sampling.measured import AUTO, measured
from workbench.sampling.sampler import defaults
from workbench.steering.attach import apply
from workbench.steering.check import check
from workbench.steering.detail_guidance import METHOD_VERSION
from workbench.steering.parts import Window
from workbench.steering.spec import DetailGuidanceSpec, load_spec

FIXED = ("format", "spec_version", "method", "model", "branch", "recommended", "evidence", "created_by", "content_hash")
"""Keys of a spec that are no settings."""

MODES = ("dg", "cfg+dg")

WINDOWS = {"all": (0.0, 1.0), "early": (0.6, 1.0), "middle": (0.3, 0.6), "late": (0.0, 0.3)}
"""Windows by name, in noise levels σ: 1 is pure noise, so early steps have large σ."""


def sweep(
    spec: DetailGuidanceSpec | str | Path,
    model: Any,
    *,
    over: Mapping[str, Sequence[Any] | str],
    prompts: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] = 0,
    out: str | Path,
    modes: str | Sequence[str] = MODES,
    steps: int | None = None,
    guidance_scale: float | None = None,
    batch_size: int = 8,
    height: int | None = None,
    width: int | None = None,
    recording: xr.Dataset | None = None,
    encode: Encode | None = None,
    judge: Any = AUTO,
    reference: Any = AUTO,
    model_name: str | None = None,
    strict: bool = True,
    progress: bool = True,
    limit_s: float = 3600.0,
    yes: bool = False,
) -> xr.Dataset:
    """Generate and measure every combination, and always the same samples without Detail Guidance.

    What is done is kept in `out`, also after a kill; the same call goes on, and another with more values of `over` adds to it.

    Parameters
    ----------
    spec : DetailGuidanceSpec or path
        What is varied; anything that `over` does not name stays.
    model : str, Path or pipeline
        As in `workbench.sample`.
    over : mapping
        Key of the spec → values. ``layer``: paths, or block numbers, or ``"auto"`` (a quarter, half, three quarters of
        the depth, and the spec's own). ``weight``: numbers. ``channels``: lists of channels, ``"massive"`` (the spec's), ``"top1"``, ``"top2"``
        … (its strongest, by the evidence), ``"matched"`` (random ordinary channels that hold as much, a control
        that is never chosen; needs `recording`).
        ``window``: `WINDOWS` by name, (low, high) in σ, or as in a spec. Other keys of the spec as they stand there.
    prompts : sequence of str, optional
        Default: the study prompts that the model ships with.
    seeds, steps, guidance_scale, batch_size, height, width, encode, progress
        As in `workbench.sample`.
    out : str or Path
        Folder of the results.
    modes : str or sequence of str
        ``dg`` (compared with plain), ``cfg+dg`` (compared with CFG alone), or both.
    recording : xr.Dataset, optional
        Of the model, for ``"matched"``.
    judge, reference, model_name
        As in `workbench.sampling.measured.measured`; the name of an embedded model is known by itself.
    strict : bool
        As in `workbench.apply`.
    limit_s, yes
        As in `run_conditions`: a sweep that would take longer is refused after its first batch, unless `yes`.

    Returns
    -------
    xarray.Dataset
        The table of `measured`; `workbench.analysis.sweep.sweep` says what it shows. It is also kept in `out`.

    Raises
    ------
    SpecError
        If a combination is no valid spec for this model, say a layer or channel that it does not have.
    WorkbenchError
        If `over` is empty or names what is not in a spec, a set of channels is empty, or it would take too long.
    """
    base = load_spec(spec) if isinstance(spec, (str, Path)) else spec
    if not isinstance(base, DetailGuidanceSpec):
        raise SpecError(f"a {type(base).__name__} is no Detail Guidance spec; load one with `load_spec(path)`.")
    name = model_name or (str(model) if isinstance(model, (str, Path)) else None)
    texts = prompts if prompts is not None else study(name)
    steps, scale = defaults(base, steps, guidance_scale)
    pipe = model if hasattr(model, "scheduler") else load_pipeline(model)
    chosen = sweep_conditions(
        base, pipe, over=over, modes=modes, guidance_scale=scale, recording=recording, strict=strict
    )
    size: dict[str, Any] = {"height": height, "width": width, "encode": encode, "progress": progress}
    run = run_conditions(
        pipe, chosen, prompts=texts, seeds=seeds, steps=steps, out=out, batch_size=batch_size, limit_s=limit_s, yes=yes, **size
    )  # fmt: skip
    table = measured(run, model_name=name, baseline=baselines_of(chosen), judge=judge, reference=reference)
    table = table.assign_coords(spec=("condition", [_spec_text(c) for c in chosen]))
    table.attrs["spec"] = json.dumps(settings_of(base) | {"content_hash": base.content_hash}, sort_keys=True)
    table.attrs["over"] = json.dumps(
        {key: _listed(values) for key, values in over.items()}, sort_keys=True, default=str
    )
    return write_table(table, out, "sweep")


def _spec_text(condition: Condition) -> str:
    """What a condition's spec does, as JSON; empty for a baseline."""
    return json.dumps(condition.identity["spec"], sort_keys=True) if "spec" in condition.identity else ""


def study(name: str | None) -> tuple[str, ...]:
    """Return the study prompts of a model by name.

    Raises
    ------
    WorkbenchError
        If it has none.
    """
    from workbench.sampling.semantic import study_prompts

    if name is None:
        raise WorkbenchError(
            "a pipeline ships no study prompts; give prompts=…, 64 or more for intervals worth having."
        )
    return study_prompts(name)


def sweep_conditions(
    spec: DetailGuidanceSpec,
    pipe: Any,
    *,
    over: Mapping[str, Sequence[Any] | str],
    modes: str | Sequence[str] = MODES,
    guidance_scale: float = 4.0,
    recording: xr.Dataset | None = None,
    strict: bool = True,
) -> list[Condition]:
    """Return the conditions of a sweep: the baselines of the modes, then every combination in every mode."""
    wanted = (modes,) if isinstance(modes, str) else tuple(modes)
    if not wanted or set(wanted) - set(MODES) or len(set(wanted)) < len(wanted):
        raise WorkbenchError(f"modes {list(wanted)} can't be swept; give each at most once, of {', '.join(MODES)}.")
    conditions = [unsteered(mode.removesuffix("dg").removesuffix("+") or "plain", guidance_scale) for mode in wanted]
    names = {condition.name for condition in conditions}
    for labels, changed in combinations(spec, pipe, over, recording):
        check(changed, pipe, strict=strict)
        role = "control" if labels.get("channels") == "matched" else "dg"
        for mode in wanted:
            condition = steered(changed, mode, labels, guidance_scale, strict=strict, role=role)
            if condition.name not in names:
                names.add(condition.name)
                conditions.append(condition)
    return conditions


def unsteered(mode: str, guidance_scale: float, *, name: str | None = None) -> Condition:
    """Return the condition without Detail Guidance: ``plain`` or ``cfg``."""
    scale = guidance_scale if mode == "cfg" else 1.0
    return Condition(name or mode, {"mode": mode, "role": "baseline", "guidance_scale": scale}, scale)


def steered(
    spec: DetailGuidanceSpec,
    mode: str,
    labels: Mapping[str, Any],
    guidance_scale: float,
    *,
    strict: bool = True,
    role: str = "dg",
) -> Condition:
    """Return the condition with a spec applied; `labels` are its factors and make its name."""
    scale = guidance_scale if "cfg" in mode else 1.0
    name = ",".join([mode, *(f"{key}={_short(value)}" for key, value in labels.items())])
    if len(name) > 110:
        name = f"{name[:93]}-{settings_hash(spec)}"
    factors = {"mode": mode, "role": role, "guidance_scale": scale, **labels, "n_channels": len(spec.channels)}
    return Condition(
        name,
        factors,
        scale,
        steer=lambda pipe: apply(spec, pipe, strict=strict),
        identity={"spec": settings_of(spec), "method_version": METHOD_VERSION},
        extra_passes=1.0,
    )


def baselines_of(conditions: Sequence[Condition]) -> dict[str, str]:
    """Return what each condition is compared with: the same mode without Detail Guidance, or itself."""
    plain = {c.factors["mode"]: c.name for c in conditions if c.factors["role"] == "baseline"}
    found = {}
    for condition in conditions:
        mode = str(condition.factors["mode"])
        found[condition.name] = plain["cfg" if mode.startswith("cfg") else "plain"]
    return found


def settings_of(spec: DetailGuidanceSpec) -> dict[str, Any]:
    """What a spec does, JSON-able: all of it but model, evidence and versions."""
    return spec.model_dump(mode="json", exclude={"evidence", "created_by", "content_hash", "recommended", "model"})


def settings_hash(spec: DetailGuidanceSpec) -> str:
    """Eight hex digits of what a spec does."""
    import hashlib

    return hashlib.sha256(json.dumps(settings_of(spec), sort_keys=True).encode()).hexdigest()[:8]


def combinations(
    spec: DetailGuidanceSpec, pipe: Any, over: Mapping[str, Sequence[Any] | str], recording: xr.Dataset | None
) -> Iterator[tuple[dict[str, Any], DetailGuidanceSpec]]:
    """Yield (labels, spec) of every combination of `over`."""
    valid = [key for key in type(spec).model_fields if key not in FIXED]
    unknown = [key for key in over if key not in valid]
    if unknown or not over:
        raise WorkbenchError(f"can't sweep over {unknown or 'nothing'}; name one or more of {', '.join(valid)}.")
    axes = {
        "layer": _layers(over.get("layer", [spec.layer]), spec, pipe),
        "weight": _listed(over.get("weight", [spec.weight])),
    }
    axes |= {key: _listed(values) for key, values in over.items() if key not in axes}
    empty = [key for key, values in axes.items() if not values]
    if empty:
        raise WorkbenchError(f"there is no value for {empty[0]!r} to sweep over; give at least one.")
    if "retention" in axes:
        axes.setdefault("action", ["scale"])  # the only action that has one
    for values in itertools.product(*axes.values()):
        at = dict(zip(axes, values, strict=True))
        if at.get("action", "scale") != "scale":
            at["retention"] = None
        changes: dict[str, Any] = dict(at)
        labels: dict[str, Any] = {}
        for key, value in at.items():
            if key == "channels":
                labels[key], changes[key] = _channels(value, spec, at["layer"], recording)
            elif key == "window":
                labels[key], changes[key] = _window(value)
            elif value is not None:
                labels[key] = value if isinstance(value, (int, float, str)) else _short(value)
        yield labels, spec.replace(**changes)


def _listed(values: Any) -> list[Any]:
    return [values] if isinstance(values, (str, int, float, Mapping)) else list(values)


def _layers(values: Any, spec: DetailGuidanceSpec, pipe: Any) -> list[str]:
    paths = layout_for(pipe).block_paths(pipe.transformer)
    found: list[str] = []
    for value in _listed(values):
        if value == AUTO:
            grid = {paths.index(spec.layer)} if spec.layer in paths else set()
            found += [paths[i] for i in sorted(grid | {len(paths) * k // 4 for k in (1, 2, 3)})]
        elif isinstance(value, int) or str(value).isdigit():
            if int(value) >= len(paths):
                raise SpecError(f"the model has no block {value}; its blocks are 0 to {len(paths) - 1}.")
            found.append(paths[int(value)])
        else:
            found.append(str(value))
    return list(dict.fromkeys(found))


def _channels(value: Any, spec: DetailGuidanceSpec, layer: str, recording: xr.Dataset | None) -> tuple[str, list[int]]:
    """Label and channels of one value of ``channels``."""
    if not isinstance(value, str):
        chosen = sorted({int(channel) for channel in value})
        if not chosen:
            raise WorkbenchError("a set of channels is empty; name at least one channel, or leave the set out.")
        return " ".join(map(str, chosen)), chosen
    if value == "massive":
        return value, list(spec.channels)
    if value.startswith("top") and value[3:].isdigit() and int(value[3:]):
        return value, strongest(spec, int(value[3:]))
    if value == "matched":
        if recording is None:
            raise WorkbenchError(
                "matched channels are drawn from a recording's statistics; give recording=workbench.open(…)."
            )
        try:
            return value, list(matched_channels(recording, layer, spec.channels, excluded=located(spec)).channels)
        except AnalysisError as error:
            raise WorkbenchError(f"channels can't be matched at {layer}: {error}") from error
    raise WorkbenchError(
        f"channels {value!r} are unknown; give lists of channels, 'massive', 'top1', 'top2', …, or 'matched'."
    )


def strongest(spec: DetailGuidanceSpec, count: int) -> list[int]:
    """The spec's strongest channels by its evidence.

    Raises
    ------
    WorkbenchError
        If it has fewer, or its evidence does not say how strong they are.
    """
    ratio = {int(row["channel"]): row.get("ratio_to_median") for row in _evidence(spec, "channels", [])}
    known = [channel for channel in spec.channels if ratio.get(channel) is not None]
    if len(known) < count:
        raise WorkbenchError(
            f"the spec's evidence ranks {len(known)} of its {len(spec.channels)} channels, so there is no top {count}; name the channels."
        )
    return sorted(sorted(known, key=lambda channel: -float(ratio[channel] or 0))[:count])


def located(spec: DetailGuidanceSpec) -> list[int]:
    """Channels that are massive somewhere in the model, by the spec's evidence."""
    notes = _evidence(spec, "notes", {})
    found = notes.get("located_channels", []) if isinstance(notes, Mapping) else []
    return [int(channel) for channel in found]


def _evidence(spec: DetailGuidanceSpec, key: str, otherwise: Any) -> Any:
    evidence = spec.model_dump(mode="json")["evidence"] or {}
    return evidence.get(key, otherwise)


def _window(value: Any) -> tuple[str, dict[str, Any]]:
    """Label and window of one value of ``window``."""
    if isinstance(value, str):
        if value not in WINDOWS:
            raise WorkbenchError(
                f"window {value!r} is unknown; give {', '.join(WINDOWS)}, (low, high) in σ, or as in a spec."
            )
        low, high = WINDOWS[value]
        return value, {"unit": "sigma", "low": low, "high": high}
    if isinstance(value, Window):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        found = dict(value)
    else:
        low, high = (float(bound) for bound in value)
        found = {"unit": "sigma", "low": low, "high": high}
    unit = "" if found.get("unit") == "sigma" else f"{found.get('unit')} "
    return f"{unit}{found.get('low'):g}-{found.get('high'):g}", found


def _short(value: Any) -> str:
    """A value as part of a name: safe for files, without what all values have in common."""
    if isinstance(value, float):
        return f"{value:g}"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = text.removeprefix("transformer_blocks.")
    return "".join(c if c.isalnum() or c in "._+-" else "-" for c in text)
