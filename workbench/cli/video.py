"""Commands about videos: profile, hierarchy, the spec of STAS, its trial."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.app import app, derive_app
from workbench.cli.options import (
    Branch,
    Criterion,
    Force,
    Frames,
    ModelOption,
    Store,
    Strict,
    Window,
    parse_channels,
    parse_window,
    refuse_existing,
)
from workbench.cli.runs import Run, trial
from workbench.cli.trials import parse_over

Channels = Annotated[str | None, typer.Option(help="Massive channels, like `66,226` [located].")]
BoundaryWidth = Annotated[
    int | None, typer.Option(help="Tokens at head and tail of a later frame that are its boundary [the recording's].")
]

#: What `--over alpha` and so on stand for; the keys and values of `workbench.sampling.stas_grid.GRID`.
_GRID_KEYS = "alpha,window,boundary_width,reference,layers"


@app.command()
def profile(store: Store, channels: Channels = None, branch: Branch = "cond", width: BoundaryWidth = None) -> None:
    """Of a video: |h| along the flattened tokens, and the boundary width that follows from it."""
    from workbench import open as open_store
    from workbench import profile as run
    from workbench.cli import show

    show.tried("profile", run(open_store(store), channels=parse_channels(channels), branch=branch, width=width))


@app.command()
def hierarchy(store: Store, channels: Channels = None, branch: Branch = "cond", width: BoundaryWidth = None) -> None:
    """Of a video: is it first frame > boundary > interior? Which levels hold, and when."""
    from workbench import hierarchy as run
    from workbench import open as open_store
    from workbench.cli import show

    show.tried("hierarchy", run(open_store(store), channels=parse_channels(channels), branch=branch, width=width))


@derive_app.command("stas")
def derive_stas(
    store: Store,
    out: Annotated[Path, typer.Option(help="The spec's file.")] = Path("spec.json"),
    criterion: Criterion = "workbench",
    layers: Annotated[str, typer.Option(help="Blocks whose leaving state is steered; full paths, by commas.")] = "auto",
    channels: Annotated[str, typer.Option(help="Channels to steer, like `66,226`.")] = "auto",
    alpha_first: Annotated[str, typer.Option(help="alpha of first-frame tokens; `none` leaves them alone.")] = "auto",
    alpha_boundary: Annotated[str, typer.Option(help="alpha of boundary tokens; `none` leaves them alone.")] = "auto",
    width: Annotated[
        int | None, typer.Option(help="Boundary width in tokens [the proposed, or the recording's].")
    ] = None,
    reference: Annotated[str, typer.Option(help="The maximum of each channel, or joint over them.")] = "auto",
    window: Window = "auto",
    branches: Annotated[str, typer.Option(help="cond, uncond, or both by a comma.")] = "auto",
    sweep: Annotated[
        Path | None,
        typer.Option(help="Folder that `stas-trial --over` wrote: its best setting is taken, and its evidence."),
    ] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Derive although the hierarchy is not supported.")] = False,
    force: Force = False,
) -> None:
    """Derive a STAS spec, with its evidence, from a recording of videos; hidden states are tested for the hierarchy."""
    from workbench import derive_stas as run
    from workbench import hierarchy as test
    from workbench import open as open_store
    from workbench import profile as read
    from workbench import save_spec
    from workbench.cli import show

    recording = open_store(store)
    refuse_existing(out, force)
    # Everything is read before the first analysis: these may take minutes.
    given = None if channels == "auto" else parse_channels(channels)
    alphas, steps = (_alpha(alpha_first), _alpha(alpha_boundary)), parse_window(window)
    evidence: dict[str, Any] = {}
    if "hidden" in recording:
        asked: dict[str, Any] = {"channels": given, "criterion": criterion, "width": width}
        evidence = {"hierarchy": test(recording, **asked), "profile": read(recording, **asked)}
        for name, result in evidence.items():
            show.tried(name, result)
    spec = run(
        recording,
        criterion=criterion,
        layers="auto" if layers == "auto" else layers.split(","),
        channels="auto" if given is None else given,
        alpha_first=alphas[0],
        alpha_boundary=alphas[1],
        boundary_width="auto" if width is None else width,
        reference=reference,  # type: ignore[arg-type]
        window=steps,
        branches="auto" if branches == "auto" else branches.split(","),
        sweep=sweep,
        anyway=anyway,
        **evidence,
    )
    show.derived(spec, save_spec(spec, out, overwrite=force))


@app.command("stas-trial")
@trial
def stas_trial(
    spec: Annotated[Path, typer.Argument(help="A spec of STAS.")],
    model: ModelOption,
    store: Annotated[
        Path | None, typer.Option(help="A recording of the model; without it there are no other channels to compare.")
    ] = None,
    controls: Annotated[list[str] | None, typer.Option("--control", help="Controls to run; repeatable [all].")] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Also other settings: keys of `{_GRID_KEYS}`, or one key with values, like `alpha=0.8,1.2` or "
            "`window=sigma:0.6-1` (or `step_fraction:0.6-1`); repeatable."
        ),
    ] = None,
    product: Annotated[bool, typer.Option("--product", help="All combinations of --over.")] = False,
    draws: Annotated[int, typer.Option(help="Sets of matched channels.")] = 1,
    strict: Strict = True,
    out: Annotated[Path, typer.Option(help="Folder for videos and numbers.")] = Path("stores/stas"),
    frames: Frames = None,
    *,
    run: Run,
) -> None:
    """What STAS does: videos without it, with it, and with the paper's controls, from the same seeds."""
    from workbench import open as open_store
    from workbench import stas_effects
    from workbench import stas_trial as try_out
    from workbench.analysis.stas_choice import stas_choice
    from workbench.cli import show
    from workbench.sampling.stas_conditions import CONTROLS
    from workbench.sampling.stas_grid import GRID

    measured = try_out(
        spec, run.pipeline(model), out=out, recording=None if store is None else open_store(store), strict=strict,
        controls=controls or CONTROLS, draws=draws, over=parse_over(over, GRID) if over else None, product=product,
        num_frames=frames, model_name=model, **run.call,
    )  # fmt: skip
    show.tried("stas", stas_effects(measured))
    if over:
        show.tried("stas_choice", stas_choice(measured))


def _alpha(text: str) -> Any:
    """A number, None for ``none``, or ``auto``."""
    from workbench.errors import WorkbenchError

    if text in ("auto", "none"):
        return None if text == "none" else "auto"
    try:
        return float(text)
    except ValueError:
        raise WorkbenchError(f"alpha = {text!r} can't be read; write a number like 1.2, or `none`.") from None
