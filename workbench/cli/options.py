"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.errors import WorkbenchError

Store = Annotated[Path, typer.Argument(help="Folder of a recording.")]
Model = Annotated[
    str, typer.Argument(help="Embedded name (mini-image, mini-video), preset, local diffusers folder, or hub id.")
]
ModelOption = Annotated[str, typer.Option("--model", help="Embedded name, preset, local diffusers folder, or hub id.")]
Prompts = Annotated[
    list[str], typer.Option("--prompts", "--prompt", help="A prompt or a .txt file with one a line; repeatable.")
]
Seeds = Annotated[str, typer.Option(help="Seeds, like `0,1,2` or `0:8`.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
Branch = Annotated[str, typer.Option(help="Branch of the guidance to look at.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, …")]
Criterion = Annotated[str, typer.Option(help="Criterion that decides; the others are shown beside it.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what an earlier run wrote.")]
Height = Annotated[int | None, typer.Option(help="Pixels.")]
Width = Annotated[int | None, typer.Option(help="Pixels.")]
Frames = Annotated[int | None, typer.Option(help="Frames of a video.")]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Run although the estimate is over the limit.")]
Limit = Annotated[float, typer.Option(help="Minutes above which --yes is asked for.")]
TrialPrompts = Annotated[
    list[str] | None,
    typer.Option("--prompts", "--prompt", help="A prompt or a .txt file; repeatable [the model's study prompts]."),
]
Batch = Annotated[int, typer.Option(help="Samples generated together.")]
Steps = Annotated[int | None, typer.Option(help="Denoising steps [the recording's or the spec's].")]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale s [the recording's or the spec's].")]
Strict = Annotated[bool, typer.Option(help="Refuse other weights of the architecture than the spec's.")]

Window = Annotated[
    str,
    typer.Option(
        help="Steps at which it acts: `step_fraction:0-0.4` (shares of the steps, the first 20 of 50), `sigma:0.6-1` (noise "
        "levels), all, early, middle or late."
    ),
]

#: More seeds than this in one range are a slip.
_MOST = 1_000_000


def parse_seeds(text: str, what: str = "seeds") -> list[int]:
    """``"0,2,5"`` or ``"0:8"`` to numbers."""
    try:
        numbers: list[int] = []
        for part in text.split(","):
            if ":" in part:
                start, stop = (int(p) for p in part.split(":"))
                if not 0 < stop - start <= _MOST:
                    raise ValueError
                numbers += range(start, stop)
            else:
                numbers.append(int(part))
    except ValueError:
        raise WorkbenchError(
            f"{what} = {text!r} can't be read; write numbers like 0,1,2 or a range like 0:8."
        ) from None
    return numbers


def parse_channels(text: str | None) -> list[int] | None:
    """``"66,226"`` to channels; None for the located ones."""
    return None if text is None else parse_seeds(text, "channels")


def parse_grid(text: str) -> int | list[int]:
    """``"5"`` is a number of steps; ``"0,10,19"`` and ``"0:20:5"`` are the steps themselves."""
    try:
        if ":" in text:
            steps = range(*(int(part) for part in text.split(":")))
            if len(steps) > _MOST:
                raise ValueError
            return list(steps)
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except (ValueError, TypeError):
        numbers = []
    if not numbers:
        raise WorkbenchError(f"grid = {text!r} can't be read; write how many steps, like 5, or which, like 0,10,19.")
    return numbers if "," in text else numbers[0]


def parse_window(text: str) -> Any:
    """A window of the spec; ``auto`` stays."""
    from workbench.steering.windows import read

    return text if text == "auto" else read(text)


def texts(prompts: list[str] | None) -> list[str] | None:
    """Prompts of a trial, files read; None for the model's study prompts."""
    from workbench.record import read_prompts

    return read_prompts(list(prompts)) if prompts else None


def refuse_existing(out: Path, force: bool) -> None:
    """Refuse to write over a spec, unless told to; make its folder.

    Raises
    ------
    WorkbenchError
        If the file exists.
    """
    if out.exists() and not force:
        raise WorkbenchError(f"{out} exists already; choose another --out, or replace it with --force.")
    out.parent.mkdir(parents=True, exist_ok=True)
