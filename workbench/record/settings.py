"""What is to be recorded, validated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.errors import RecordingError
from workbench.select import Clause, Select

Tier = Literal["stats", "full"]
Experiment = Literal["timestep-swap", "prompt-swap", "seed-swap"]


class Settings(BaseModel):
    """Everything that decides the numbers of a recording, except the model itself.

    Attributes
    ----------
    prompts, seeds : tuple
        Samples are all prompts × all seeds, prompt by prompt.
    steps : int
        Denoising steps.
    guidance_scale : float
        s of ``D_u + s (D_c − D_u)``; at most 1 means no classifier-free guidance and only the branch ``cond``.
    height, width, num_frames : int or None
        Pixels and, of a video, frames; None is the pipeline's own default.
    tier : {"stats", "full"}
        Statistics only, or the full hidden states as well.
    batch_size : int
        Samples generated together. Part of the identity: kernels may round differently at another batch size.
    select : Select
        Layers, timesteps and branches to record.
    experiment : {"timestep-swap", "prompt-swap", "seed-swap"} or None
        What is exchanged between the steps of a grid; None records the trajectory.
    grid : int or tuple of int or None
        So many steps evenly over the trajectory, or these; None without an experiment.
    mediate : tuple, str or None
        Blocks whose modulation is exchanged by itself as well, or ``"all"``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, lt=1 << 63)], ...] = Field(min_length=1)
    steps: int = Field(default=20, ge=1, le=10_000)
    guidance_scale: float = Field(default=4.0, ge=0, le=1000, allow_inf_nan=False)
    height: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    num_frames: int | None = Field(default=None, ge=1)
    tier: Tier = "stats"
    batch_size: int = Field(default=1, ge=1)
    select: Select = Select()
    experiment: Experiment | None = None
    grid: int | tuple[int, ...] | None = None
    mediate: Clause = None

    @property
    def samples(self) -> list[tuple[str, int]]:
        """(prompt, seed) of every sample, in order."""
        return [(prompt, seed) for prompt in self.prompts for seed in self.seeds]

    @property
    def call(self) -> dict[str, Any]:
        """What of the settings a call of the pipeline takes."""
        return {name: getattr(self, name) for name in ("steps", "guidance_scale", "height", "width", "num_frames")}


def make_settings(prompts: Any, seeds: Any, **others: Any) -> Settings:
    """Build :class:`Settings` from what a user gives.

    Parameters
    ----------
    prompts : str, Path, or sequence of them
        Prompts, or text files with one prompt a line (empty lines and lines that start with ``#`` are left out).
    seeds : int or sequence of int
    **others
        Fields of :class:`Settings`; None stands for the default.

    Raises
    ------
    RecordingError
        If prompts are missing or a value is out of its range.
    """
    texts = read_prompts(prompts)
    if not texts:
        raise RecordingError('There are no prompts. Give at least one: --prompts "red apple", or a text file.')
    numbers = (int(seeds),) if isinstance(seeds, Integral) else tuple(int(seed) for seed in seeds)
    if not numbers:
        raise RecordingError("There are no seeds. Give at least one: --seeds 0.")
    for what, values in (("prompt", texts), ("seed", numbers)):
        twice = {value for value, count in Counter(values).items() if count > 1}
        if twice:
            raise RecordingError(
                f"The same {what} is given more than once: {sorted(map(str, twice))}. Equal samples are no independent evidence."
            )
    try:
        settings = Settings(
            prompts=tuple(texts), seeds=numbers, **{name: value for name, value in others.items() if value is not None}
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RecordingError(f"{place} = {first.get('input')!r} can't be used: {first['msg']}.") from error
    _check_experiment(settings)
    if settings.select.tokens is not None or settings.select.channels is not None:
        raise RecordingError(
            "A recording always holds all tokens and channels; select layers, timesteps and branches here, and tokens and "
            "channels when you read it."
        )
    return settings


def _check_experiment(settings: Settings) -> None:
    """What of an experiment can be judged without the model."""
    if settings.experiment is None:
        if settings.mediate is not None:
            raise RecordingError("mediate= belongs to an experiment: say --experiment timestep-swap as well.")
        if settings.grid is not None:
            raise RecordingError(
                f"grid= ({settings.grid}) belongs to an experiment: say --experiment timestep-swap as well, or choose the "
                "recorded steps with --timesteps."
            )
        return
    if settings.select.timesteps is not None:
        raise RecordingError(
            f"An experiment takes its steps from the grid, not from --timesteps ({settings.select.timesteps!r}). Give them "
            "as --grid 0,5,10."
        )
    if settings.mediate is not None and settings.experiment != "timestep-swap":
        raise RecordingError(
            f"mediate= exchanges the modulation of two timesteps; {settings.experiment} has none to exchange. Use it with "
            "--experiment timestep-swap."
        )
    varied = {"prompt-swap": ("prompt", settings.prompts), "seed-swap": ("seed", settings.seeds)}
    what, values = varied.get(settings.experiment, ("", ()))
    if what and len(values) < 2:
        raise RecordingError(
            f"A {settings.experiment} with one {what} ({values[0]!r}) varies nothing. Give at least two {what}s."
        )


def read_prompts(prompts: str | Path | Sequence[str | Path]) -> list[str]:
    """Prompts from texts and text files, in order."""
    items = [prompts] if isinstance(prompts, str | Path) else list(prompts)
    texts: list[str] = []
    for item in items:
        if isinstance(item, Path) or (len(item) < 4096 and item.lower().endswith(".txt")):
            try:
                lines = Path(item).read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise RecordingError(f"The prompt file {item} can't be read: {error}.") from error
            texts += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        elif item.strip():
            texts.append(item.strip())
    return texts
