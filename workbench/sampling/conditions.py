"""Many *conditions* × the same samples: the one engine of disruption, sweep and baselines.

Every condition starts from the same noise, so conditions are compared sample by sample. Results are kept batch by batch
(`workbench.sampling.condition_store`): a run that was stopped goes on, and conditions can be added later.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from workbench.errors import WorkbenchError
from workbench.models import (
    Encode,
    call_arguments,
    checked_size,
    component_hashes,
    embedding_hash,
    fingerprint,
    generate,
)
from workbench.progress import Progress
from workbench.sampling.condition_store import ConditionStore, check_name, open_conditions, plain
from workbench.sampling.sampler import check_pipeline, distinct_prompts, distinct_seeds, silent
from workbench.store.lock import locked

RESERVED = ("condition", "sample", "prompt", "seed", "done", "image", "latent_final", "seconds", "finite", "marker")

DAYS = 86_400.0


@dataclass(frozen=True)
class Condition:
    """One way to generate the samples.

    Attributes
    ----------
    name : str
        Unique, and fit to be a folder's name.
    factors : mapping
        What distinguishes it, JSON-able; becomes coordinates of the result.
    guidance_scale : float
        At most 1: no classifier-free guidance.
    steer : callable, optional
        ``steer(pipe)`` returns a context manager that is entered once, around all batches of the condition. If what it
        yields has a method ``report()``, that is called after each batch, and returns name → one number a sample
        of that batch; the names are `reports`.
    call : mapping
        Further arguments of the pipeline call, JSON-able.
    identity : mapping
        JSON-able; together with guidance scale, call, factors and reports it decides whether a stored result is the same.
    pipeline : callable, optional
        ``pipeline(pipe)`` returns another pipeline of the same parts that is run in its place.
    reports : tuple of str
        Names of the numbers that ``report()`` gives.
    extra_passes : float
        How many passes of one branch its steering adds to a step, at most; only the estimate of the time uses it.
    """

    name: str
    factors: Mapping[str, str | float | int]
    guidance_scale: float
    steer: Callable[[Any], AbstractContextManager[Any]] | None = None
    call: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Callable[[Any], Any] | None = None
    reports: tuple[str, ...] = ()
    extra_passes: float = 0.0

    @property
    def whole_identity(self) -> dict[str, Any]:
        """Everything that decides its results, and what they are labelled with."""
        return {
            "guidance_scale": self.guidance_scale,
            "call": dict(self.call),
            "factors": dict(self.factors),
            "reports": list(self.reports),
            "identity": dict(self.identity),
        }

    @property
    def passes(self) -> float:
        """About how many passes of one branch a step takes, to estimate with."""
        return (2.0 if self.guidance_scale > 1 else 1.0) + self.extra_passes


def run_conditions(
    pipe: Any,
    conditions: Sequence[Condition],
    *,
    prompts: str | Sequence[str],
    seeds: int | Sequence[int] = 0,
    steps: int = 20,
    out: str | Path,
    batch_size: int = 8,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
    encode: Encode | None = None,
    progress: bool = True,
    limit_s: float = 3600.0,
    yes: bool = False,
) -> xr.Dataset:
    """Generate every sample under every condition, and keep what is done: images, or all frames of videos.

    A condition's images are those of `workbench.sample` with the same batch size, bit for bit. What is stored already, and is
    still what was written, is not run again; a kill loses at most the batch that was running. Samples whose latents are not finite are kept as such
    (``finite`` False, and listed in the attribute ``not_finite``), and the run goes on.

    Parameters
    ----------
    pipe : pipeline
        Left as it was.
    conditions : sequence of Condition
        Their order changes nothing but the order of the result.
    prompts, seeds
        Samples are all prompts × all seeds, prompt by prompt.
    steps : int
        Denoising steps.
    out : str or Path
        Folder of the results; of an earlier call with the same settings, or a new one.
    batch_size, height, width, num_frames, encode, progress
        As in `workbench.sample`.
    limit_s : float
        Seconds. If the estimate after the first batch is above it, and `yes` is False, the run stops there.
    yes : bool
        Run however long it takes.

    Returns
    -------
    xarray.Dataset
        Of `open_conditions`, with these conditions in this order.

    Raises
    ------
    WorkbenchError
        If there are no conditions, two of one name, the size is none that the pipeline can have, the pipeline is being steered already, or it would take longer than
        `limit_s`.
    StoreError
        If the folder was made with other settings, can't be written, or another process is writing to it.
    """
    chosen = _conditions(conditions)
    samples = [(prompt, seed) for prompt in distinct_prompts(prompts) for seed in distinct_seeds(seeds)]
    if steps < 1 or batch_size < 1:
        raise WorkbenchError(f"steps = {steps} and batch_size = {batch_size} must be at least 1.")
    if not limit_s >= 0:
        raise WorkbenchError(f"limit_s = {limit_s} is no limit; give seconds, or float('inf') for none.")
    check_pipeline(pipe)
    size: dict[str, Any] = {"height": height, "width": width, "num_frames": num_frames}
    checked_size(pipe, **size)  # before there is a folder, which would then be of that size
    settings = run_settings(pipe, samples, steps=steps, batch_size=batch_size, **size, encode=encode)
    store = ConditionStore(out, settings=settings, samples=samples, batch_size=batch_size)
    with locked(store.path, "generating into"):
        _run(pipe, chosen, store, steps, size | {"encode": encode}, progress, limit_s, yes)
    result = open_conditions(out, [c.name for c in chosen])
    result.attrs["not_finite"] = not_finite(result)
    return result


def _run(
    pipe: Any,
    chosen: list[Condition],
    store: ConditionStore,
    steps: int,
    options: Mapping[str, Any],
    progress: bool,
    limit_s: float,
    yes: bool,
) -> None:
    """Generate what the store lacks."""
    samples, batch_size, out = store.samples, store.batch_size, store.path
    missing = {c.name: store.missing(c.name, c.whole_identity) for c in chosen}
    clock = _Clock(chosen, {name: len(starts) for name, starts in missing.items()}, limit_s, yes, out)
    total = sum(len(starts) for starts in missing.values()) * steps
    with Progress("conditions", total, progress) as bar:
        for condition in chosen:
            if not missing[condition.name]:
                continue
            used = condition.pipeline(pipe) if condition.pipeline else pipe
            with silent(used), condition.steer(used) if condition.steer else contextlib.nullcontext() as steering:
                for start in missing[condition.name]:
                    began, batch = time.monotonic(), samples[start : start + batch_size]
                    common: dict[str, Any] = {"steps": steps, "guidance_scale": condition.guidance_scale, **options}
                    arguments = call_arguments(used, batch, **common) | dict(condition.call)
                    latents, images, seconds = _timed(used, arguments, bar.advance)
                    store.write(
                        condition.name,
                        start,
                        identity=condition.whole_identity,
                        factors=condition.factors,
                        image=images,
                        latent=latents,
                        seconds=seconds / len(batch),
                        reports=_reports(condition, steering, len(batch)),
                    )
                    clock.tick(condition, time.monotonic() - began)


def not_finite(run: xr.Dataset) -> list[str]:
    """Name the samples that are not finite: ``condition: 'prompt', seed 3``."""
    at = np.argwhere(~run["finite"].transpose("condition", "sample").values & run["done"].values[:, None])
    prompts, seeds, names = run["prompt"].values, run["seed"].values, run["condition"].values
    return [f"{names[c]}: {str(prompts[s])!r}, seed {int(seeds[s])}" for c, s in at]


def run_settings(
    pipe: Any,
    samples: Sequence[tuple[str, int]],
    *,
    steps: int,
    batch_size: int,
    height: int | None,
    width: int | None,
    num_frames: int | None = None,
    encode: Encode | None,
) -> dict[str, Any]:
    """Everything that decides the numbers of all conditions, JSON-able."""
    scheduler = {k: v for k, v in dict(pipe.scheduler.config).items() if not k.startswith("_")}
    prompts, seeds = list(dict.fromkeys(p for p, _ in samples)), list(dict.fromkeys(s for _, s in samples))
    return {
        "model": fingerprint(pipe),
        "pipeline_class": type(pipe).__name__,
        "scheduler": {"class": type(pipe.scheduler).__name__, **plain(scheduler)},
        "dtype": str(pipe.transformer.dtype).removeprefix("torch."),
        "device": pipe.transformer.device.type,
        "prompts": prompts,
        "seeds": seeds,
        "steps": steps,
        "batch_size": batch_size,
        "height": height,
        "width": width,
        # Only where there is one, so that what is said of a run of images stays what it was.
        **({} if num_frames is None else {"num_frames": num_frames}),
        "components": component_hashes(pipe, encode),
        "embeddings": embedding_hash(encode, prompts),
        "versions": {name: _version(name) for name in ("dit-workbench", "torch", "diffusers", "transformers")},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _conditions(conditions: Sequence[Condition]) -> list[Condition]:
    chosen = list(conditions)
    if not chosen:
        raise WorkbenchError("There are no conditions to run. Give at least one.")
    # File systems may not tell upper case from lower.
    twice = [name for name, count in Counter(c.name.lower() for c in chosen).items() if count > 1]
    if twice:
        raise WorkbenchError(f"two conditions are called {twice[0]!r}; give each a name of its own.")
    for condition in chosen:
        check_name(condition.name)
        taken = [key for key in [*condition.factors, *condition.reports] if key in RESERVED]
        if taken:
            raise WorkbenchError(f"the condition {condition.name!r} can't have a factor or report called {taken[0]!r}.")
        try:
            json.dumps(condition.whole_identity)
        except TypeError as error:
            raise WorkbenchError(f"the condition {condition.name!r} can't be written as JSON: {error}.") from error
    return chosen


def _reports(condition: Condition, steering: Any, count: int) -> dict[str, np.ndarray]:
    found = dict(steering.report()) if condition.reports else {}
    values = {key: np.asarray(found.get(key, ()), dtype=np.float64) for key in condition.reports}
    wrong = [key for key, value in values.items() if value.shape != (count,)]
    if wrong:
        raise WorkbenchError(
            f"the condition {condition.name!r} reported {values[wrong[0]].shape} numbers as {wrong[0]!r} of a batch of {count}."
        )
    return values


def _timed(
    pipe: Any, arguments: Mapping[str, Any], on_step: Callable[[], None]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Generate, and the wall seconds from the first call of the transformer to the end of the last step."""
    first: list[float] = []
    last: list[float] = [0.0]

    def start(*_: Any) -> None:
        if not first:
            first.append(_now(pipe))

    def stepped() -> None:
        last[0] = _now(pipe)
        on_step()

    handle = pipe.transformer.register_forward_pre_hook(start)
    try:
        made = generate(pipe, arguments, stepped)
    finally:
        handle.remove()
    assert made.images is not None  # there is a VAE
    return made.latents, made.images, last[0] - first[0]


def _now(pipe: Any) -> float:
    if pipe.transformer.device.type == "cuda":
        import torch

        torch.cuda.synchronize(pipe.transformer.device)
    return time.perf_counter()


class _Clock:
    """Stops a run that would take too long, after its first batch."""

    def __init__(
        self, chosen: list[Condition], batches: Mapping[str, int], limit_s: float, yes: bool, out: Path
    ) -> None:
        self.chosen, self.left, self.limit_s, self.yes, self.out = chosen, dict(batches), limit_s, yes, out
        self.timed = False

    def tick(self, condition: Condition, seconds: float) -> None:
        self.left[condition.name] -= 1
        if self.timed:
            return
        self.timed = True
        per_pass = seconds / condition.passes
        estimate = sum(self.left[c.name] * c.passes * per_pass for c in self.chosen)
        if estimate > self.limit_s and not self.yes:
            batches, open_ = sum(self.left.values()), sum(n > 0 for n in self.left.values())
            raise WorkbenchError(
                f"This would take about {duration(estimate)}: {open_} condition{'s' if open_ != 1 else ''}, {batches} batches "
                f"left, {seconds:.2g} s for the first. The limit is {duration(self.limit_s)}. Take fewer conditions, prompts, seeds or "
                f"steps, raise the limit, or say yes (--yes). What is done stays in {self.out} and is not run again."
            )


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    for unit, size in (("days", DAYS), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


__all__ = ["Condition", "not_finite", "open_conditions", "run_conditions"]
