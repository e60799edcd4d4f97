"""What ``workbench models PRESET`` prints: facts with their standing, and what a run takes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from rich.markup import escape

from workbench.cli.show import size, table, text
from workbench.errors import UnsupportedModelError
from workbench.models import layout_for
from workbench.models.preset import STANDINGS, Preset, weights_of
from workbench.record.expected import expected_shape, image_of
from workbench.record.plan import make_plan
from workbench.record.probe import Shape
from workbench.record.settings import make_settings
from workbench.select import Select

#: dtype → bytes of one number.
_DTYPES = {"bfloat16": 2, "float32": 4}
#: Which steps are recorded, as ``--timesteps`` takes it, in words.
_STEPS = {None: "all", "::4": "every fourth (--timesteps ::4)"}


def preset(row: Preset) -> None:
    """Print a preset. Builds its transformer without weights; loads and downloads nothing."""
    shape = expected_shape(row)
    table(f"{row.name}: {row.title}", ["what", "value"], [*_model(row, shape)])
    table(
        "Said of its massive activations; none of it was checked here",
        ["about", "what", "standing", "source"],
        [[fact.about, fact.says, f"{fact.standing}: {STANDINGS[fact.standing]}", fact.source] for fact in row.facts],
    )
    table("Weights", ["part", *_DTYPES], _weights(row))
    table(
        f"A recording, for one sample (one image or video) at {_pixels(row)}",
        ["tier", "steps", *_DTYPES],
        _recordings(row, shape),
    )
    text(f"A run needs the weights in memory, and what its calls compute with on top. {_next(row)}")


def _next(row: Preset) -> str:
    """What to do with the model itself, at this size."""
    if row.entry.condition:
        return f"Nothing was loaded. {row.pipeline} takes a {row.entry.condition}, no prompt: record it from Python, with encode=."
    frames = f" --frames {row.frames}" if row.frames > 1 else ""
    return (
        f"Nothing was loaded; the model itself is asked by `workbench record {row.name} --prompts … --steps {row.steps} "
        f"--guidance {row.scale if row.guided else 1:g} --height {row.height} --width {row.width}{frames} --plan`."
    )


def _model(row: Preset, shape: Shape) -> list[list[str]]:
    guidance = row.entry.guidance
    lines = [
        ["hub", row.hub],
        ["family, pipeline", f"{row.family}, {row.pipeline}"],
        ["configuration", f"{row.source}: {STANDINGS[row.source]}"],
        ["blocks", str(len(shape.layers) - 1)],
        ["channels", str(shape.channels)],
        ["default", f"{_pixels(row)}, {row.steps} steps, guidance {row.scale:g}"],
        ["tokens", f"{shape.tokens} (F, H, W = {' × '.join(map(str, shape.grid))})"],
        ["branches", " + ".join(shape.branches) + ("" if guidance is None or guidance.batched else ", a call each")],
    ]
    lines += [[key, str(value)] for key, value in (row.settings or {}).items()]
    if row.experts > 1:
        lines.append(["transformers", str(row.experts)])
    if row.remark:
        lines.append(["remark", row.remark])
    if limit := _limit(row):
        lines.append(["limit", limit])
    return [[escape(cell) for cell in line] for line in lines]


def _limit(row: Preset) -> str:
    """What the workbench will refuse of it; empty if nothing."""
    parts: dict[str, Any] = {"transformer": row.transformer(), "config": SimpleNamespace(**row.settings or {})}
    if row.experts > 1:
        parts["transformer_2"] = parts["transformer"]
    try:
        layout_for(type(row.pipeline, (), parts)())
    except UnsupportedModelError as error:
        return str(error)
    return ""


def _weights(row: Preset) -> list[list[str]]:
    count = weights_of(row.transformer()) * row.experts
    parts = [("transformer" if row.experts == 1 else f"{row.experts} transformers", float(count))]
    parts += [(f"{name} (about)", billions * 1e9) for name, billions in row.others]
    parts.append(("all", sum(numbers for _, numbers in parts)))
    return [[name, *(size(numbers * each) for each in _DTYPES.values())] for name, numbers in parts]


def _recordings(row: Preset, shape: Shape) -> list[list[str]]:
    rows = []
    for tier in ("stats", "full"):
        for steps, words in _STEPS.items():
            settings = make_settings(["a prompt"], [0], tier=tier, steps=row.steps, select=Select(timesteps=steps))
            plans = [make_plan(settings, replace(shape, dtype=dtype), image_of(row)) for dtype in _DTYPES]
            rows.append([tier, f"{len(plans[0].steps)}, {words}", *(size(plan.bytes) for plan in plans)])
    return rows


def _pixels(row: Preset) -> str:
    frames = f"{row.frames} frames of " if row.frames > 1 else ""
    return f"{frames}{row.height} × {row.width} pixels"
