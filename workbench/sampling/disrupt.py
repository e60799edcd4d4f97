"""Run the disruptions of a model from paired seeds, and measure what each of them changes in the images.

Which they are, `workbench.sampling.disruption_plan` says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis.same_model import same_model
from workbench.analysis.tables import write_table
from workbench.models import fingerprint, load_pipeline
from workbench.sampling.disruption_plan import PLAIN, disruption_conditions, of_recording, plan_disruption
from workbench.sampling.measured import measured
from workbench.sampling.measures import image_measures
from workbench.sampling.options import RunOptions
from workbench.sampling.sampler import check_images
from workbench.sampling.semantic import (
    judge_folder,
    load_clip,
    load_judge,
    load_reference,
    named_by_store,
    study_prompts,
)

IMAGES = "images"


def disrupt(
    model: Any,
    recording: xr.Dataset,
    *,
    out: str | Path,
    **options: Any,
) -> xr.Dataset:
    """Disrupt a model at each layer in turn, and measure the images.

    Parameters
    ----------
    model : str, Path or pipeline
        The model that was recorded.
    recording : xr.Dataset
        From `workbench.open`: says which channels are massive and how large all channels are.
    out : str or Path
        Folder: `IMAGES` in it holds the images (a kill loses at most one batch; the same call goes on), the table of
        `workbench.analysis.tables` lies beside it.
    **options
        Prompts, seeds, steps and so on, the attributes of `workbench.sampling.options.RunOptions` (where they say nothing: the
        model's study prompts if it ships some, else the recording's prompts; steps, guidance scale and size of the
        recording), and those of `plan_disruption`.

    Returns
    -------
    xr.Dataset
        `value(condition, sample, measure)`, NaN where a measure can't be had; `other(sample, measure)`: the same measures of
        the undisturbed image of *another prompt* in this sample's place, which says how large a change is when nothing of
        the picture is left; `removed_norm(condition, sample)`: L2 norm over channels that was taken away or added, root mean
        square over tokens, mean over visits and branches; `finite(condition, sample)`. Coordinates say of a condition `kind`, `layer`, `block`,
        `window` with `sigma_low` and `sigma_high`, `draw`, number of `channels`, `coverage` (norm expected from the
        recording over that of the massive channels); of a measure `measure_kind`, `unit`, `label`; of a sample `prompt` and
        `seed`. What could not be had is named in the attribute `omitted`.

    Raises
    ------
    WorkbenchError
        See `plan_disruption` and `run_conditions`; also if the recording is of another model.
    """
    how, plan = RunOptions.split(options)
    found = plan_disruption(recording, guidance_scale=how.guidance_scale, **plan)
    count = int(of_recording(recording, "steps", how.steps))
    pipe = model if hasattr(model, "scheduler") else load_pipeline(model)
    check_images(pipe)
    identity = fingerprint(pipe)
    same_model(recording, identity, "the recording", "the model that is disrupted")
    name = str(recording.attrs.get("model_name", ""))
    judged = str(model) if isinstance(model, (str, Path)) else named_by_store(name, identity)
    texts = _prompts(how.prompts, judged, recording)
    settings = recording.attrs.get("settings", {})
    given = {"height": how.height, "width": how.width}
    size = {key: value if value is not None else settings.get(key) for key, value in given.items()}
    out = Path(out)
    run = how.run(pipe, found.conditions, out / IMAGES, prompts=texts, steps=count, **size)
    result = measure(run, judged)
    result.attrs |= {
        "model_name": name,
        "settings": json.dumps(run.attrs["settings"], sort_keys=True),
        "recording_fingerprint": str(recording.attrs.get("settings_fingerprint", "")),
        "guidance_scale": found.conditions[0].guidance_scale,
        "steps": count,
        "design": found.design,
        "massive_channels": json.dumps(found.channels, sort_keys=True),
        "plan": json.dumps({key: _plain(value) for key, value in plan.items()}, sort_keys=True),
        "omitted": [*found.omitted, *result.attrs["omitted"]],
    }
    return write_table(result, out, "disruption")


def measure(run: xr.Dataset, model_name: str | None) -> xr.Dataset:
    """Measure all images of a run, as `disrupt` returns them; see there. `model_name`: whose judge, the user's word."""
    prompts = [str(prompt) for prompt in run["prompt"].values]
    parts: dict[str, Any] = {
        "judge": load_judge(model_name) if model_name else None,
        "reference": load_reference(model_name) if model_name else None,
        "clip": load_clip(),
    }
    # `measured` calls the kind of a measure `kind`; here that is a factor of the conditions.
    result = measured(run.rename(kind="disturbed"), model_name=model_name, baseline=PLAIN, **parts)
    result = result.rename(kind="measure_kind").rename(disturbed="kind")
    plain_SYX3 = run["image"].sel(condition=PLAIN).transpose("sample", "y", "x", "rgb").values
    usable_S, swap_S = result["finite"].sel(condition=PLAIN).values, _another(prompts)
    found = image_measures(plain_SYX3[swap_S], prompts, plain_SYX3=plain_SYX3, **parts)
    other_SM = np.stack([found[str(name)] for name in result["measure"].values], axis=1)
    result["other"] = (("sample", "measure"), np.where((usable_S & usable_S[swap_S])[:, None], other_SM, np.nan))
    result = result[["value", "other", "removed_norm", "finite"]]
    result.attrs["omitted"] = list(result.attrs.pop("left_out"))
    return result


def _prompts(prompts: str | Sequence[str] | None, name: str | None, recording: xr.Dataset) -> str | Sequence[str]:
    if prompts is not None:
        return prompts
    if name and judge_folder(name) is not None:
        return study_prompts(name)
    return list(dict.fromkeys(str(prompt) for prompt in recording["prompt"].values))


def _another(prompts: Sequence[str]) -> np.ndarray:
    """For each sample, one of another prompt (of another seed, where there is one prompt): the same place, one prompt on."""
    distinct = list(dict.fromkeys(prompts))
    if len(distinct) == 1:
        return np.roll(np.arange(len(prompts)), -1)
    of = {prompt: [i for i, p in enumerate(prompts) if p == prompt] for prompt in distinct}
    following = dict(zip(distinct, distinct[1:] + distinct[:1], strict=True))
    return np.array([of[following[p]][of[p].index(i) % len(of[following[p]])] for i, p in enumerate(prompts)])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


__all__ = ["disrupt", "disruption_conditions", "measure", "plan_disruption"]
