"""Try a spec of STAS out: videos with it, without it, with the paper's controls, from the same seeds; and a grid of settings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis.tables import write_table
from workbench.sampling.conditions import Condition
from workbench.sampling.memory import refuse_too_large
from workbench.sampling.options import TrialOptions, prepare
from workbench.sampling.over import listed
from workbench.sampling.sampler import check_videos, distinct_prompts, distinct_seeds, sizes_of
from workbench.sampling.stas_conditions import CONTROLS, PLAIN, spec_text, stas_conditions, steered
from workbench.sampling.stas_grid import grid_specs
from workbench.sampling.sweep import settings_hash, settings_of
from workbench.steering.check import check
from workbench.steering.spec import StasSpec


def stas_trial(
    spec: StasSpec | str | Path,
    model: Any,
    *,
    out: str | Path,
    recording: xr.Dataset | None = None,
    controls: str | Sequence[str] = CONTROLS,
    draws: int = 1,
    over: Mapping[str, Any] | None = None,
    product: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Generate and measure videos without STAS, with it, and with each control, from the same seeds.

    Videos are kept in `out`, also after a kill: the same call goes on, and another with more controls or other values of `over` makes
    only those that are not there yet. The table is of the last call alone.

    Parameters
    ----------
    spec : StasSpec or path
        From `derive_stas` or `load_spec`.
    model : str, Path or pipeline
        As in `workbench.sample`; of videos.
    out : str or Path
        Folder of the results.
    recording : xr.Dataset, optional
        Of the same model, for other channels (``low``, ``matched``); without it these are left out, by name.
    controls : sequence of str
        Of `stas_conditions.CONTROLS`; empty for none.
    draws : int
        Sets of matched channels.
    over : mapping, optional
        Settings to be tried besides: see `stas_grid.grid_specs`; `stas_grid.GRID` is a coarse one.
    product : bool
        All combinations of `over`, and not each key alone.
    **options
        Prompts, seeds, steps and so on: the attributes of `workbench.sampling.options.TrialOptions`. A size that is not given is the
        spec's recommended one. At a guidance scale of at most 1 nothing here has CFG.

    Returns
    -------
    xarray.Dataset
        The table of `measured`, every condition against ``plain``: `value(condition, sample, measure)`, `changed_norm(condition,
        sample)` (L2 norm of what STAS changed in a state it changed), `better(measure)`; coordinates `role` (baseline, stas, control,
        grid) and `control`. `workbench.stas_effects` says what it shows. ``attrs["left_out"]`` names the controls that can't be
        had, and why.

    Raises
    ------
    SpecError
        If it is no spec of STAS, does nothing, or is not for this model.
    UnsupportedModelError
        If the model makes no videos.
    WorkbenchError
        As `workbench.sweep`.
    """
    given = TrialOptions.of(options)
    unguided = given.guidance_scale is not None and given.guidance_scale <= 1
    modes = ("plain",) if unguided else ("cfg",)
    ready = prepare(spec, model, StasSpec, given, modes=modes, recording=recording, what="tried")
    check_videos(ready.pipe)
    asked = {"height": given.height, "width": given.width, "num_frames": given.num_frames}
    size: Any = sizes_of(ready.spec, **asked)
    count = len(distinct_prompts(ready.prompts)) * len(distinct_seeds(given.seeds))
    refuse_too_large(ready.pipe, size, asked, min(given.batch_size, count))
    ready = ready._replace(options=dataclasses.replace(given, **size))
    scale, strict = ready.guidance_scale, ready.options.strict
    chosen, lacking = stas_conditions(
        ready.spec, ready.pipe, guidance_scale=scale, steps=ready.steps, recording=recording, controls=controls,
        draws=draws, strict=strict,
    )  # fmt: skip
    if over is not None:
        chosen += grid_conditions(
            ready.spec, ready.pipe, over=over, product=product, guidance_scale=scale, strict=strict
        )
    table = ready.table(chosen, out, dict.fromkeys([c.name for c in chosen], PLAIN))
    specs = [json.dumps(c.identity["spec"], sort_keys=True) if "spec" in c.identity else "" for c in chosen]
    table = table.assign_coords(spec=("condition", np.array(specs, dtype=str)))
    table.attrs["left_out"] = lacking + list(table.attrs["left_out"])
    table.attrs["spec"] = json.dumps(
        settings_of(ready.spec) | {"content_hash": ready.spec.content_hash}, sort_keys=True
    )
    table.attrs["over"] = json.dumps(
        {key: listed(values) for key, values in (over or {}).items()}, sort_keys=True, default=str
    )
    return write_table(table, out, "stas")


def grid_conditions(
    spec: StasSpec, pipe: Any, *, over: Mapping[str, Any], product: bool, guidance_scale: float, strict: bool = True
) -> list[Condition]:
    """Return a condition for each setting of `over`, of the role ``grid``, factors: what is varied."""
    found: dict[str, Condition] = {}
    for labels, changed in grid_specs(spec, pipe, over, product=product):
        check(changed, pipe, strict=strict)
        factors = {"role": "grid", "control": "", **labels}
        condition = steered(spec_text(changed, **labels), changed, guidance_scale, factors, strict=strict)
        there = found.get(condition.name.lower())
        if there is not None and there.whole_identity != condition.whole_identity:
            # Two settings may read the same; each is run, under a name of its own.
            condition = dataclasses.replace(condition, name=f"{condition.name}-{settings_hash(changed)}")
        found[condition.name.lower()] = condition
    return list(found.values())
