"""From the images of conditions to numbers: one table for disruption, sweep, baselines and, of videos, the trial of STAS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr

from workbench.errors import WorkbenchError
from workbench.sampling.condition_store import intact_images
from workbench.sampling.conditions import not_finite
from workbench.sampling.measures import TABLE, Measure, image_measures
from workbench.sampling.spectrum import Reference
from workbench.sampling.temporal import CHUNK
from workbench.sampling.video_measures import VIDEO_TABLE, video_measures

AUTO: Literal["auto"] = "auto"


def measured(
    run: xr.Dataset,
    *,
    model_name: str | None = None,
    baseline: str | Mapping[str, str],
    judge: Any = AUTO,
    reference: Any = AUTO,
    clip: Any = None,
) -> xr.Dataset:
    """Measure every image of a run (see `workbench.sampling.measures`), or every video (`workbench.sampling.video_measures`).

    Parameters
    ----------
    run : xr.Dataset
        From `run_conditions` or `open_conditions`; only conditions that are complete are measured.
    model_name : str, optional
        Which judge and reference to load, where there are any.
    baseline : str or mapping
        The condition that content is compared with: one for all, or condition → its own.
    judge, reference, clip : optional
        As `image_measures` takes them. ``"auto"``: those of `model_name`; None: without. Of videos only the reference
        is used, as `video_measures` takes it.

    Returns
    -------
    xarray.Dataset
        `value(condition, sample, measure)`, NaN where a measure can't be had, as for images of latents that are not finite;
        whatever the conditions reported and `seconds`, `finite`; coordinates of `run`, `baseline(condition)`, and of each
        measure its `kind`, `unit` and `label`, of a video's also `better` (1: more is better, −1: less is, 0: neither). ``attrs["left_out"]`` names what was not measured.

    Raises
    ------
    WorkbenchError
        If a baseline is not there or not complete.
    """
    there = [str(name) for name in run["condition"].values]
    against = {name: baseline if isinstance(baseline, str) else baseline.get(name, "") for name in there}
    whole = {name for name, done in zip(there, run["done"].values, strict=True) if done}
    if lost := [name for name in dict.fromkeys(against.values()) if name not in whole]:
        raise WorkbenchError(
            f"the baseline {lost[0]!r} is not among the complete conditions {', '.join(sorted(whole)) or '(none)'}; run it first."
        )
    video = run["image"].ndim == 6
    table: Mapping[str, Measure] = VIDEO_TABLE if video else TABLE
    judge = _judge(model_name) if isinstance(judge, str) and not video else judge
    reference = _reference(model_name, video) if isinstance(reference, str) else reference
    if reference is not None and isinstance(reference, Reference) == video:
        raise WorkbenchError(
            f"the reference is a {type(reference).__name__}, which is none for {'videos' if video else 'images'}; make one with "
            f"{'`clip_statistics(videos)`' if video else '`Reference.of(images, …)`'}."
        )
    prompts = [str(prompt) for prompt in run["prompt"].values]
    names = [name for name in there if name in whole]
    images: dict[str, np.ndarray] = {
        name: _images(run, name) for name in dict.fromkeys(against[name] for name in names)
    }
    finite = run["finite"].transpose("condition", "sample").values
    values = np.full((len(names), len(prompts), len(table)), np.nan)
    for i, name in enumerate(names):
        own, plain = finite[there.index(name)], finite[there.index(against[name])]
        image = images[name] if name in images else _images(run, name)
        if video:
            found = video_measures(
                image, prompts, plain_SFYX3=images[against[name]], reference=reference, chunk=_chunk(run)
            )
        else:
            found = image_measures(
                image, prompts, plain_SYX3=images[against[name]], judge=judge, reference=reference, clip=clip
            )
        for m, measure in enumerate(table):
            if measure in found:
                usable = own & plain if table[measure].needs == "plain" else own
                values[i, :, m] = np.where(usable, found[measure], np.nan)
    seen = ~np.isnan(values).all(axis=(0, 1))
    kept = [m for m, known in zip(table, seen, strict=True) if known]
    part = run.sel(condition=names).drop_vars(["image", "latent_final", "marker"], errors="ignore").load()
    result = part.assign(value=(("condition", "sample", "measure"), values[..., seen])).assign_coords(
        measure=("measure", np.array(kept, dtype=str)),
        kind=("measure", np.array([table[m].kind for m in kept], dtype=str)),
        unit=("measure", np.array([table[m].unit for m in kept], dtype=str)),
        label=("measure", np.array([table[m].label for m in kept], dtype=str)),
        baseline=("condition", np.array([against[name] for name in names], dtype=str)),
    )
    if video:
        result = result.assign_coords(better=("measure", [VIDEO_TABLE[m].better for m in kept]))
    lost = [f"{name}: not complete" for name in there if name not in whole]
    lost += [f"{table[m].label}: can't be had for this model" for m in table if m not in kept]
    lost += [f"{line} (not finite)" for line in not_finite(run)]
    result.attrs = {
        "path": run.attrs.get("path", ""),
        "settings": json.dumps(run.attrs.get("settings", {}), sort_keys=True),
        "factors": list(run.attrs.get("factors", [])),
        "left_out": lost,
        "model_name": model_name or "",
        # What the distribution over pictures or videos is compared with (`analysis.gauge`, `analysis.stas`).
        "reference": _described(reference) if seen.any() else "",
    }
    return result


def _images(run: xr.Dataset, name: str) -> np.ndarray:
    return intact_images(run, name)


def _judge(model_name: str | None) -> Any:
    if model_name is None:
        return None
    from workbench.sampling.semantic import load_judge

    return load_judge(model_name)


def _reference(model_name: str | None, video: bool) -> Any:
    if model_name is None:
        return None
    from workbench.sampling.semantic import load_clip_reference, load_reference

    return load_clip_reference(model_name) if video else load_reference(model_name)


def _described(reference: Any) -> str:
    """Mean and spread of what real pictures or clips are like, as JSON; empty without any."""
    if isinstance(reference, Reference):
        found = {"mean": reference.mean.tolist(), "spread": reference.spread.tolist(), "pictures": reference.pictures}
        return json.dumps(found)
    if reference is None:
        return ""
    return json.dumps({key: value for key, value in reference.items() if key != "by_caption"})


def _chunk(run: xr.Dataset) -> int:
    """Pixel frames of a latent frame, from the sizes of both: 1 + chunk · (latent frames − 1)."""
    frames, latent = (int(run.sizes.get(name, 1)) for name in ("video_frame", "latent_frame"))
    return max(1, round((frames - 1) / (latent - 1))) if latent > 1 else CHUNK
