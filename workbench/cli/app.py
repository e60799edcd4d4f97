"""Arguments in, one verb called, a short answer out. No verb's work is done here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench import __version__
from workbench.cli.options import (
    Branch,
    Criterion,
    Device,
    Dtype,
    Force,
    Frames,
    Height,
    Model,
    Prompts,
    Quiet,
    Revision,
    Seeds,
    Store,
    Strict,
    Width,
    Window,
    parse_channels,
    parse_grid,
    parse_seeds,
    parse_window,
    refuse_existing,
)
from workbench.errors import WorkbenchError

app = typer.Typer(
    help="Record, analyse and steer massive activations in diffusion transformers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
#: What typer makes of Ctrl-C.
_INTERRUPTED = 130

derive_app = typer.Typer(help="Derive a steering spec from a recording.", no_args_is_help=True)
app.add_typer(derive_app, name="derive")


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def record(
    model: Model,
    prompts: Prompts,
    out: Annotated[Path, typer.Option(help="Folder of the store.")] = Path("stores/recording.zarr"),
    seeds: Seeds = "0",
    steps: Annotated[int | None, typer.Option(help="Denoising steps [20].")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale s [4]; at most 1 means none.")] = None,
    height: Height = None,
    width: Width = None,
    frames: Frames = None,
    boundary_width: Annotated[
        int | None,
        typer.Option(help="Of a video: tokens at head and tail of a later frame that are its boundary [one row]."),
    ] = None,
    tier: Annotated[str | None, typer.Option(help="stats, or full: all hidden states as well [stats].")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples generated together [1].")] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Layers to record, like `transformer_blocks.3` or `0:4`; position 0 is the state before the first block."
        ),
    ] = None,
    timesteps: Annotated[str | None, typer.Option(help="Steps to record, like `::4`.")] = None,
    branches: Annotated[str | None, typer.Option(help="Branches to record, like `cond`.")] = None,
    experiment: Annotated[
        str | None,
        typer.Option(
            help="timestep-swap, prompt-swap or seed-swap: forward passes with pieces exchanged instead of the trajectory."
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(help="Of an experiment: how many steps, evenly spread, or which ones, like `0,10,19` [5]."),
    ] = None,
    mediate: Annotated[
        str | None,
        typer.Option(
            help="Of a timestep-swap: `all`, or blocks like `transformer_blocks.3` or `4:8`, whose modulation is "
            "exchanged alone as well."
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it would take.")] = False,
    budget: Annotated[float, typer.Option(help="Gigabytes above which --yes is asked for.")] = 20.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Record although it is over the budget.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Check an existing store first, record damaged samples anew.")
    ] = False,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Generate images and record every block's hidden states. The same command continues an interrupted recording."""
    from workbench.cli import show
    from workbench.record import record as run
    from workbench.select import Select

    def confirm(the_plan: Any) -> bool:
        show.plan(the_plan, details=plan)
        return not plan

    store = run(
        model, prompts=prompts, seeds=parse_seeds(seeds), out=out, steps=steps, guidance_scale=guidance, height=height,
        width=width, num_frames=frames, boundary_width=boundary_width, tier=tier, batch_size=batch, experiment=experiment,
        grid=None if grid is None else parse_grid(grid), mediate=mediate, revision=revision, dtype=dtype, device=device,
        yes=yes or plan, repair=repair,
        select=Select(layers=layers, timesteps=timesteps, branches=branches), budget=budget * 1e9, progress=not quiet,
        confirm=confirm,
    )  # fmt: skip
    if not plan:
        show.recorded(store)


@app.command()
def locate(store: Store, criterion: Criterion = "workbench", branch: Branch = "cond") -> None:
    """Which channels are massive activations, by every criterion side by side."""
    from workbench import locate as run
    from workbench import open as open_store
    from workbench.cli import show

    show.located(run(open_store(store), criterion=criterion, branch=branch))


@app.command()
def modulation(
    store: Store,
    experiment: Annotated[
        list[Path] | None,
        typer.Option(help="A swap experiment of the same model, for the causal part; repeatable, one of each kind."),
    ] = None,
    branch: Branch = "cond",
) -> None:
    """How massive activations move along the trajectory (observed), and with `--experiment` what moves them (causal)."""
    from workbench import locate
    from workbench import modulation as run
    from workbench import open as open_store
    from workbench.cli import show
    from workbench.report.tried import swapped

    recording = open_store(store)
    if recording.attrs.get("experiment"):  # an experiment alone has its own diagonal to locate on
        show.tried("causal", swapped(None, None, [recording, *(experiment or [])], branch))
        return
    show.modulated(run(recording, branch=branch))
    if experiment:
        show.tried("causal", swapped(recording, locate(recording, branch=branch), experiment, branch))


@derive_app.command("dg")
def derive_dg(
    store: Store,
    out: Annotated[Path, typer.Option(help="The spec's file.")] = Path("spec.json"),
    criterion: Criterion = "workbench",
    layer: Annotated[str, typer.Option(help="Block whose entering state is masked; full module path.")] = "auto",
    channels: Annotated[str, typer.Option(help="Channels to zero, like `66,226`.")] = "auto",
    weight: Annotated[float | None, typer.Option(help="w; default: the documented one.")] = None,
    action: Annotated[str, typer.Option(help="zero, scale (by --retention) or mean (over tokens).")] = "zero",
    retention: Annotated[float | None, typer.Option(help="rho of `--action scale`, 0 to 1.")] = None,
    window: Window = "auto",
    sweep: Annotated[
        Path | None, typer.Option(help="Folder that `sweep` wrote: its best setting is taken, and its evidence.")
    ] = None,
    mode: Annotated[str | None, typer.Option(help="dg or cfg+dg: the mode of the sweep that decides.")] = None,
    force: Force = False,
) -> None:
    """Derive a Detail Guidance spec, with its evidence, from a recording."""
    from workbench import derive_dg as run
    from workbench import open as open_store
    from workbench import save_spec
    from workbench.cli import show

    spec = run(
        open_store(store),
        criterion=criterion,
        layer=layer,
        channels="auto" if channels == "auto" else parse_channels(channels),
        weight="auto" if weight is None else weight,
        action=action,  # type: ignore[arg-type]
        retention=retention,
        window=parse_window(window),
        sweep=sweep,
        mode=mode,
    )
    refuse_existing(out, force)
    show.derived(spec, save_spec(spec, out, overwrite=force))


@app.command()
def sample(
    model: Model,
    prompts: Prompts,
    spec: Annotated[Path | None, typer.Option(help="A steering spec.")] = None,
    seeds: Seeds = "0",
    steps: Annotated[int | None, typer.Option(help="Denoising steps [the spec's, else 20].")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale s [the spec's, else 4].")] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="plain, cfg, dg, cfg+dg, stas or cfg+stas; repeatable [with CFG, and the spec]."),
    ] = None,
    strict: Strict = True,
    comparing: Annotated[bool, typer.Option("--compare", help="All modes, a labelled grid, numbers.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for images or videos.")] = Path("reports/samples"),
    batch: Annotated[int, typer.Option(help="Samples generated together.")] = 4,
    height: Height = None,
    width: Width = None,
    frames: Frames = None,
    force: Force = False,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    quiet: Quiet = False,
) -> None:
    """Generate images or videos, with a spec applied or not; `--compare` for all ways from the same seeds."""
    from workbench import load_pipeline
    from workbench import sample as run
    from workbench.cli import show
    from workbench.record import read_prompts
    from workbench.sampling.save import save_comparison

    result = run(
        load_pipeline(model, revision=revision, dtype=dtype, device=device), prompts=read_prompts(list(prompts)),
        seeds=parse_seeds(seeds), steps=steps, guidance_scale=guidance, spec=spec,
        modes=mode, compare=comparing and not mode, batch_size=batch,
        height=height, width=width, num_frames=frames, strict=strict, progress=not quiet,
    )  # fmt: skip
    if comparing:
        show.sampled(save_comparison(result, out, overwrite=force).differences, out)
    else:
        typer.echo(result.save(out, overwrite=force))


@app.command()
def demo(
    stores: Annotated[Path, typer.Option(help="Folder for recordings and images.")] = Path("stores"),
    reports: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("reports"),
) -> None:
    """The whole path on the embedded models, of images and of videos: record, analyse, derive, try out, report. Takes minutes."""
    from workbench.cli.demo import demo as run

    run(stores, reports)


@app.command()
def verify(store: Store, quiet: Quiet = False) -> None:
    """Re-read everything and check it against the checksums. Exit status 1 if anything is missing or wrong."""
    from workbench import verify as run
    from workbench.cli import show
    from workbench.progress import Progress

    with Progress("verifying", show.sample_count(store), not quiet) as bar:
        result = run(store, progress=lambda done, total: bar.advance())
    if not show.verified(store, result):
        raise typer.Exit(1)


@app.command()
def figures(
    store: Store,
    out: Annotated[Path, typer.Option(help="Folder for PNG, PDF and CSV files.")] = Path("reports/figures"),
    criterion: Criterion = "workbench",
    branch: Branch = "cond",
    quiet: Quiet = False,
) -> None:
    """Draw every figure of a recording as PNG, PDF and CSV."""
    from workbench import open as open_store
    from workbench.report.build import draw_all

    _, drawn = draw_all(open_store(store), out, criterion=criterion, branch=branch, progress=not quiet)
    for figure in drawn.values():
        typer.echo(figure["png"])


@app.command()
def report(
    store: Store,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("reports/report"),
    experiment: Annotated[
        list[Path] | None, typer.Option(help="A swap experiment of the same model; repeatable.")
    ] = None,
    disruption: Annotated[Path | None, typer.Option(help="Folder that `disruption` wrote.")] = None,
    sweep: Annotated[Path | None, typer.Option(help="Folder that `sweep` wrote.")] = None,
    baselines: Annotated[Path | None, typer.Option(help="Folder that `baselines` wrote.")] = None,
    stas: Annotated[Path | None, typer.Option(help="Folder that `stas-trial` wrote.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write it as Markdown here too.")] = None,
    spec: Annotated[Path | None, typer.Option(help="A spec to show.")] = None,
    comparison: Annotated[Path | None, typer.Option(help="Folder that `sample --compare` wrote.")] = None,
    criterion: Criterion = "workbench",
    branch: Branch = "cond",
    quiet: Quiet = False,
) -> None:
    """Analyse a recording and write one self-contained HTML page."""
    from workbench import load_spec
    from workbench.report import report as run

    page = run(
        store, out, experiments=experiment or (), disrupted=disruption, swept=sweep, baselines=baselines, stas=stas,
        page=page,
        spec=None if spec is None else load_spec(spec), comparison=comparison, criterion=criterion, branch=branch,
        progress=not quiet,
    )  # fmt: skip
    typer.echo(f"Report: {page}")


@app.command()
def models(
    model: Annotated[str | None, typer.Argument(help="A preset, or a model to check.")] = None, device: Device = None
) -> None:
    """The families the workbench knows; or what a preset needs; or one model, loaded and checked by a dry forward pass."""
    from workbench.cli import preset, show
    from workbench.models.presets import PRESETS

    if model is None:
        show.families()
    elif model in PRESETS and not Path(model).is_dir():
        preset.preset(PRESETS[model])
    else:
        show.checked(model, device)


def main() -> None:
    """Run the command line; a mistake of the user's is one clear line, not a traceback."""
    try:
        app()
    except WorkbenchError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'A file'} can't be used: {error.strerror or error}.")
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            typer.secho(
                "Interrupted. What was complete is kept; run the same command to continue.", fg="yellow", err=True
            )
        raise


def fail(message: str) -> None:
    """One line on stderr, exit status 2."""
    typer.secho(f"Error: {message}", fg="red", err=True)
    sys.exit(2)
