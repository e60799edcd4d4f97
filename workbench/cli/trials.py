"""Commands that try things out on a model: disruption, sweep, baselines, and the study that is all of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.app import app
from workbench.cli.options import Criterion, Model, ModelOption, Strict, Yes, parse_channels
from workbench.cli.runs import Run, trial
from workbench.errors import WorkbenchError

#: What `--over layer` and so on stand for where no values are given.
DEFAULT_GRID: dict[str, list[Any]] = {
    "layer": ["auto"],
    "weight": [0.5, 1.0, 2.0, 4.0],
    "channels": ["massive", "top1"],
    "window": ["all", "early", "middle", "late"],
    "action": ["zero", "mean"],
}


@app.command()
@trial
def disruption(
    model: Model,
    store: Annotated[Path, typer.Option(help="A recording of the model.")],
    out: Annotated[Path, typer.Option(help="Folder for images and numbers.")] = Path("stores/disruption"),
    layers: Annotated[str | None, typer.Option(help="Blocks, like `transformer_blocks.3` or `0:4` [all].")] = None,
    channels: Annotated[str | None, typer.Option(help="Massive channels, like `66,226` [located].")] = None,
    criterion: Criterion = "workbench",
    kinds: Annotated[list[str] | None, typer.Option("--kind", help="Controls to run; repeatable [all].")] = None,
    branches: Annotated[str, typer.Option(help="Rows that are changed: all, cond or uncond.")] = "all",
    product: Annotated[bool, typer.Option("--product", help="All windows at all layers.")] = False,
    draws: Annotated[int, typer.Option(help="Draws of each random control.")] = 2,
    windows: Annotated[bool, typer.Option(help="Also thirds of the trajectory, at half depth.")] = True,
    *,
    run: Run,
) -> None:
    """What massive channels carry: zero them at each layer in turn, beside controls, from the same seeds."""
    from workbench import disrupt
    from workbench import disruption as analyse
    from workbench import open as open_store
    from workbench.cli import show

    recording = open_store(store)
    measured = disrupt(
        run.pipeline(model), recording, out=out, layers=_blocks(layers, recording), channels=parse_channels(channels),
        criterion=criterion, branches=branches, product=product, draws=draws, **({"kinds": kinds} if kinds else {}),
        **({} if windows else {"windows": {}}), **run.call,
    )  # fmt: skip
    show.tried("disruption", analyse(measured))


@app.command()
@trial
def sweep(
    spec: Annotated[Path, typer.Argument(help="A steering spec.")],
    model: ModelOption,
    over: Annotated[
        list[str],
        typer.Option(
            help="What to vary: `layer,weight,channels,window,action` for their default values, or one key with its values, "
            "like `weight=1,2` or `layer=2,4,6`; repeatable."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for images and numbers.")] = Path("stores/sweep"),
    store: Annotated[Path | None, typer.Option(help="A recording of the model, for `channels=matched`.")] = None,
    mode: Annotated[list[str] | None, typer.Option(help="dg or cfg+dg; repeatable [both].")] = None,
    strict: Strict = True,
    *,
    run: Run,
) -> None:
    """Which setting of Detail Guidance is best, if any: every combination from the same seeds."""
    from workbench import open as open_store
    from workbench import sweep as vary
    from workbench.analysis.sweep import sweep as analyse
    from workbench.cli import show

    measured = vary(
        spec, run.pipeline(model), over=parse_over(over), out=out, strict=strict, **({"modes": mode} if mode else {}),
        recording=None if store is None else open_store(store), model_name=model, **run.call,
    )  # fmt: skip
    show.tried("sweep", analyse(measured))


@app.command()
@trial
def baselines(
    spec: Annotated[Path, typer.Argument(help="A steering spec.")],
    model: ModelOption,
    store: Annotated[
        Path | None, typer.Option(help="A recording of the model; without it there are no matched channels.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Sets of matched channels.")] = 2,
    strict: Strict = True,
    out: Annotated[Path, typer.Option(help="Folder for images and numbers.")] = Path("stores/baselines"),
    *,
    run: Run,
) -> None:
    """Detail Guidance beside CFG scales, other channels and other guidances, from the same seeds."""
    from workbench import baselines as compare
    from workbench import open as open_store
    from workbench.analysis.baselines import baselines as analyse_baselines
    from workbench.cli import show

    measured = compare(
        spec, run.pipeline(model), out=out, draws=draws, strict=strict,
        recording=None if store is None else open_store(store), model_name=model, **run.call,
    )  # fmt: skip
    show.tried("baselines", analyse_baselines(measured))


def parse_over(items: list[str], defaults: Mapping[str, Any] = DEFAULT_GRID) -> dict[str, list[Any]]:
    """``["layer,weight", "channels=massive,top1"]`` to keys and their values; a key alone stands for its default values."""
    over: dict[str, list[Any]] = {}
    for item in items:
        key, given, values = item.partition("=")
        named = {key.strip(): [_value(v) for v in values.split(",") if v.strip()]} if given else None
        for name in [key.strip()] if named else [part.strip() for part in item.split(",")]:
            if name in over or (named is None and name not in defaults):
                raise WorkbenchError(
                    f"--over {item} can't be used: {name!r} {'is given twice' if name in over else 'has no default values'}. "
                    f"Name {', '.join(defaults)}, or write {name or 'key'}=value,value."
                )
            over[name] = named[name] if named else list(defaults[name])
    return over


def _value(text: str) -> Any:
    """A number where it is one; channels of one set are joined by ``+``, like ``159+95``."""
    text = text.strip()
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    parts = text.split("+")
    return [int(part) for part in parts] if len(parts) > 1 and all(part.isdigit() for part in parts) else text


def _blocks(layers: str | None, recording: Any) -> list[str] | None:
    if layers is None:
        return None
    from workbench.select import resolve

    blocks = [str(name) for name in recording["layer"].values if name != "input"]
    return [blocks[i] for i in resolve(layers, "layer", blocks)]


@app.command()
def study(
    model: Model = "mini-image",
    stores: Annotated[Path, typer.Option(help="Folder for recordings and images.")] = Path("stores/study"),
    reports: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("reports/study"),
    page: Annotated[Path | None, typer.Option(help="Write the report as Markdown here too.")] = None,
    yes: Yes = False,
) -> None:
    """The whole path at publication size: every study prompt, every layer, all controls. Continues where it stopped."""
    from workbench.cli.demo import study as run

    run(model, stores, reports, page=page, yes=yes)
