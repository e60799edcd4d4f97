"""How a trial is run: what disruption, the sweep, the baselines and the trial of STAS have in common, in one place.

They take these as keyword arguments: ``sweep(spec, model, over=…, out=…, seeds=[0, 1], batch_size=4)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import xarray as xr

from workbench.analysis.same_model import same_model
from workbench.errors import SpecError, WorkbenchError
from workbench.models import Encode, fingerprint, load_pipeline
from workbench.sampling.conditions import Condition, run_conditions
from workbench.sampling.measured import AUTO, measured
from workbench.sampling.sampler import check_numbers, defaults
from workbench.steering.spec import load_spec


@dataclass(frozen=True)
class RunOptions:
    """How samples are generated under many conditions.

    Attributes
    ----------
    prompts : str or sequence of str, optional
        Default: the study prompts that the model ships with.
    seeds : int or sequence of int
        Each prompt with each seed, the same in every condition.
    steps, guidance_scale : optional
        Default: the recording's or the spec's.
    batch_size, height, width, num_frames, encode, progress
        As in `workbench.sample`.
    limit_s, yes
        As in `workbench.sampling.conditions.run_conditions`: what would take longer is refused after its first batch, unless `yes`.
    """

    prompts: str | Sequence[str] | None = None
    seeds: int | Sequence[int] = 0
    steps: int | None = None
    guidance_scale: float | None = None
    batch_size: int = 8
    height: int | None = None
    width: int | None = None
    num_frames: int | None = None
    encode: Encode | None = None
    progress: bool = True
    limit_s: float = 3600.0
    yes: bool = False

    @classmethod
    def split(cls, options: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """These options, and what is left of the mapping."""
        names = {field.name for field in fields(cls)}
        own = {key: value for key, value in options.items() if key in names}
        return cls(**own), {key: value for key, value in options.items() if key not in names}

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """These options alone.

        Raises
        ------
        WorkbenchError
            If there is another.
        """
        found, unknown = cls.split(options)
        if unknown:
            valid = ", ".join(field.name for field in fields(cls))
            raise WorkbenchError(f"there is no option {next(iter(unknown))!r}; besides its own there are {valid}.")
        return found

    def run(
        self,
        pipe: Any,
        conditions: Sequence[Condition],
        out: Path | str,
        *,
        prompts: str | Sequence[str],
        steps: int,
        **size: Any,
    ) -> xr.Dataset:
        """`run_conditions` with these options; `size` in place of the options' own height and width."""
        own = {"height": self.height, "width": self.width, "num_frames": self.num_frames} | size
        return run_conditions(
            pipe, conditions, prompts=prompts, seeds=self.seeds, steps=steps, out=out, batch_size=self.batch_size, **own,
            encode=self.encode, progress=self.progress, limit_s=self.limit_s, yes=self.yes,
        )  # fmt: skip


@dataclass(frozen=True)
class TrialOptions(RunOptions):
    """How a spec is tried out.

    Attributes
    ----------
    judge, reference, model_name
        As in `workbench.sampling.measured.measured`; the name of an embedded model is known by itself.
    strict : bool
        As in `workbench.apply`.
    """

    judge: Any = AUTO
    reference: Any = AUTO
    model_name: str | None = None
    strict: bool = True


class Ready(NamedTuple):
    """A spec and a model that can be tried out: what `prepare` checked, loaded and filled in."""

    spec: Any
    pipe: Any
    name: str | None
    prompts: str | Sequence[str]
    steps: int
    guidance_scale: float
    options: TrialOptions

    def table(self, conditions: Sequence[Condition], out: str | Path, baseline: Mapping[str, str]) -> xr.Dataset:
        """Generate under the conditions and measure; `baseline`: condition → what it is compared with."""
        run = self.options.run(self.pipe, conditions, out, prompts=self.prompts, steps=self.steps)
        return measured(
            run, model_name=self.name, baseline=baseline, judge=self.options.judge, reference=self.options.reference
        )


def prepare(
    spec: Any,
    model: Any,
    kind: type[Any],
    options: TrialOptions,
    *,
    modes: Sequence[str],
    recording: xr.Dataset | None = None,
    what: str = "tried out",
) -> Ready:
    """Load spec and model, and fill in what is not given.

    Parameters
    ----------
    spec : spec or path
        Of the class `kind`.
    model : str, Path or pipeline
        As in `workbench.sample`.
    modes : sequence of str
        Of the sampler; those with CFG need a guidance scale above 1.
    recording : xr.Dataset, optional
        Must be of the model.
    what : str
        What is done with the model, for the message.

    Raises
    ------
    SpecError
        If it is another spec.
    WorkbenchError
        If a number can't be used, there are no prompts, or the recording is of another model.
    """
    base = load_spec(spec) if isinstance(spec, (str, Path)) else spec
    if not isinstance(base, kind):
        words = {"DetailGuidanceSpec": "Detail Guidance", "StasSpec": "STAS"}.get(kind.__name__, kind.__name__)
        raise SpecError(f"a {type(base).__name__} is no {words} spec; load one with `load_spec(path)`.")
    name = options.model_name or (str(model) if isinstance(model, (str, Path)) else None)
    texts = options.prompts if options.prompts is not None else study(name)
    steps, scale = defaults(base, options.steps, options.guidance_scale)
    check_numbers(steps, scale, options.batch_size, modes)
    pipe = model if hasattr(model, "scheduler") else load_pipeline(model)
    if recording is not None:
        same_model(recording, fingerprint(pipe), "the recording", f"the model that is {what}")
    return Ready(base, pipe, name, texts, steps, scale, options)


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
