"""Measure how often the frame hierarchy's verdict is right, open and wrong; `docs/hierarchy.md` quotes it.

    python -m benchmarks.hierarchy_rates            print the tables
    python -m benchmarks.hierarchy_rates --write    and put them, and the power curve, into docs/

Simulated recordings (`tests/planted_video.py`: image content that depends on place and moves, prompts that differ in every
contrast) go through the functions of `workbench.analysis.hierarchy`. Seeds are fixed. About a quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the simulated recordings live with the tests

from benchmarks.hierarchy_draws import LEVELS, PARTS, SMALL, Judged  # noqa: E402
from tests.planted_video import BOUNDARY, FIRST, TRUTHS, Size, Spread, Truth  # noqa: E402
from workbench.analysis import hierarchy_rule as rule  # noqa: E402
from workbench.analysis.hierarchy import SMALLEST_EFFECT  # noqa: E402
from workbench.analysis.hierarchy_contrasts import (  # noqa: E402
    DECIDING,
    FIRST_BOUNDARY,
    FIRST_INTERIOR,
    NO_DRIFT,
    ROWS,
    ROWS_COLUMNS,
    ROWS_FIRST,
    STEEP_BOUNDARY,
    STEEP_INTERIOR,
)
from workbench.figures import style  # noqa: E402

PAGE = ROOT / "docs" / "hierarchy.md"
CURVE = ROOT / "docs" / "figures" / "hierarchy_power.png"
BEGIN, END = "<!-- hierarchy rates: begin -->", "<!-- hierarchy rates: end -->"
SETS = 200
PROMPTS = (8, 16, 32)
EFFECTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)


class Row(NamedTuple):
    """What is so, and what should be said of it."""

    what: str
    truth: Truth
    right: str
    spread: Spread = Spread()


ANSWERS = (
    *(Row(f"{name}", truth, name) for name, truth in TRUTHS.items()),
    Row("first frame and boundary alike", Truth(first=BOUNDARY, boundary=BOUNDARY), rule.BOTH),
    Row("all three levels and image edges", Truth(first=FIRST, boundary=BOUNDARY, edges=BOUNDARY), rule.ALL),
    Row("top and bottom rows of the image only, no columns", Truth(rows=BOUNDARY), rule.EDGES),
    Row("all three levels; columns of the image raised by 0.4", Truth(first=FIRST, boundary=BOUNDARY, columns=0.4), rule.UNDECIDED),
    Row("columns of the image raised by 0.4", Truth(columns=0.4), rule.NONE),
    Row("a drift of 0.4 over the frames", Truth(drift=0.4), rule.NONE),
    Row("first frame of all channels alike", Truth(first_everywhere=FIRST), rule.FIRST),
    Row("all three levels; prompts' own contrasts skewed", TRUTHS[rule.ALL], rule.ALL, Spread(tails="skewed")),
    Row("none; prompts' own contrasts skewed", Truth(), rule.NONE, Spread(tails="skewed")),
    Row("none; prompts differ twice as much", Truth(), rule.NONE, Spread(own=0.16)),
    Row("first frame of all channels, boundary of the massive ones", Truth(first_everywhere=FIRST, boundary=BOUNDARY), rule.ALL),
    Row("a drift of 0.5 that falls by 2.7 times a frame", Truth(curve=0.5), rule.UNDECIDED),
    Row("a drift of 0.5 that falls by 5 times a frame", Truth(curve=0.5, falls=5.0), rule.UNDECIDED),
    Row("all three levels and a drift of 0.1", Truth(first=FIRST, boundary=BOUNDARY, drift=0.1), rule.ALL),
    Row("all three levels and a drift of 0.2", Truth(first=FIRST, boundary=BOUNDARY, drift=0.2), rule.ALL),
    Row("first frame and boundary alike, and a drift of 0.4", Truth(first=BOUNDARY, boundary=BOUNDARY, drift=0.4), rule.BOTH),
)  # fmt: skip


def found(
    truth: Truth,
    prompts: int,
    count: int,
    *,
    start: int,
    spread: Spread | None = None,
    anew: bool = False,
    parts: Sequence[str] = LEVELS,
) -> list[Judged]:
    """Results on so many data sets."""
    size = Size(prompts=prompts, **SMALL)
    return [Judged(truth, size, spread or Spread(), start + i, anew=anew, parts=parts) for i in range(count)]


def rate(hits: Any) -> str:
    """A share of data sets with its exact 95 % interval."""
    values = np.asarray(hits, dtype=bool)
    low, high = binomtest(int(values.sum()), len(values)).proportion_ci()
    return f"{values.mean():.1%} ({low:.1%} to {high:.1%})"


def answers() -> list[str]:
    rows = [
        "| what is so | prompts | right | undecided | wrong | specific: yes / no / not known | verdict: supported |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for number, row in enumerate(ANSWERS):
        for n in PROMPTS if row.right == row.what else PROMPTS[1:2]:
            start = 1_000_000 * (number + 1) + 10_000 * n
            results = found(row.truth, n, SETS, start=start, spread=row.spread)
            said = np.asarray([result.levels for result in results])
            right, open_ = said == row.right, said == rule.UNDECIDED
            specific = [result.specific for result in results]
            counts = " / ".join(str(specific.count(word)) for word in ("yes", "no", "not known"))
            supported = np.mean([result.verdict == "supported" for result in results])
            cells = (f"{right.mean():.1%}", f"{open_.mean():.1%}", rate(~right & ~open_), counts, f"{supported:.1%}")
            rows.append(f"| {row.what} | {n} | " + " | ".join(cells) + " |")
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def type_one() -> list[str]:
    """Nothing planted and nothing common to prompts by place: every p-value should be at most 0.05 in 5 %.

    Content is weak here: what varies inside a region raises ln mean |h| by half its variance, and regions differ in that.
    499 flips that are the same for all data sets would reject in 4 to 6 %, depending on which; so they are drawn anew.
    """
    weak = Spread(middle=0.0, content=0.05)
    settings = {
        "8 prompts": (8, weak),
        "16 prompts": (16, weak),
        "8 prompts, without contrasts of their own": (8, replace(weak, own=0.0)),
    }
    results = {
        name: found(Truth(), n, 2 * SETS, start=50_000_000 + 10_000 * i, spread=spread, anew=True, parts=PARTS)
        for i, (name, (n, spread)) in enumerate(settings.items())
    }

    def row(title: str, hit: Callable[[Judged], Any]) -> str:
        return f"| {title} | " + " | ".join(rate([bool(hit(r)) for r in each]) for each in results.values()) + " |"

    def held(result: Judged) -> np.ndarray:
        low, high = ([result.of(f"overall_{end}", name) for name in DECIDING] for end in ("low", "high"))
        return (np.asarray(low) <= 0) & (np.asarray(high) >= 0)

    coverage = " | ".join(f"{np.mean([held(r) for r in each]):.1%}" for each in results.values())
    return [
        "| p ≤ 0.05 | " + " | ".join(settings) + " |",
        "|---|" + "---:|" * len(settings),
        *(row(name, lambda r, c=name: r.of("overall_p", c) <= 0.05) for name in DECIDING),
        row("any of these, corrected", lambda r: r.small("overall_p_corrected")),
        row(
            "any contrast, block and timestep, corrected",
            lambda r: (r.data_vars["p_corrected"].values[:, 1:] <= 0.05).any(),
        ),
        row(
            "any contrast in the state before the blocks, corrected too",
            lambda r: (r.data_vars["p_corrected"].values[:, :1] <= 0.05).any(),
        ),
        row("frames shuffled, either contrast, corrected", lambda r: r.small("shuffle_p")),
        row("boundaries rotated", lambda r: r.small("rotation_p_overall")),
        row("boundaries rotated, any layer and timestep, corrected", lambda r: r.small("rotation_p_corrected")),
        row("trend over the roles", lambda r: r.small("trend_p")),
        row("whole order in more than half of the prompts", lambda r: r.small("ordered_p")),
        row("early against late, any, corrected", lambda r: r.small("early_minus_late_p_corrected")),
        row("any level claimed", lambda r: r.levels in rule.CLAIMED),
        f"| intervals that hold the truth, of the contrasts that decide | {coverage} |",
    ]


def at_margin() -> list[str]:
    """Every contrast of a claim exactly at the smallest effect: to claim it and to deny it are both wrong."""
    rows = ["| exactly at the smallest effect | prompts | claimed | denied |", "|---|---:|---:|---:|"]
    claims = {
        "first frame": (Truth(first=SMALLEST_EFFECT), (FIRST_INTERIOR, NO_DRIFT, STEEP_INTERIOR)),
        "boundary": (Truth(first=0.5, boundary=SMALLEST_EFFECT), (ROWS, ROWS_COLUMNS, ROWS_FIRST)),
        "first over boundary": (Truth(first=0.5 + SMALLEST_EFFECT, boundary=0.5), (FIRST_BOUNDARY, STEEP_BOUNDARY)),
    }
    for number, (name, (truth, parts)) in enumerate(claims.items()):
        for n in PROMPTS[:2]:
            start = 60_000_000 + 100_000 * number + 1000 * n
            results = found(truth, n, SETS, start=start, spread=Spread(middle=0.0))
            words = [[r.states[part] for part in parts] for r in results]
            claimed = [set(said) == {rule.ABOVE} for said in words]
            against = [{r.states[part] for part in parts if part not in rule.GUARDS} for r in results]
            rows.append(f"| {name} | {n} | {rate(claimed)} | {rate([rule.NOT_ABOVE in said for said in against])} |")
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def over_time() -> list[str]:
    rows = [
        "| first frame 0.5 and boundary 0.25, times | prompts | first - interior: early / late / steady / undecided | "
        "row edge - column edge: early / late / steady / undecided |",
        "|---|---:|---:|---:|",
    ]
    for number, early in enumerate((1.0, 1.5, 2.0, 0.0)):
        for n in PROMPTS[:2]:
            truth = Truth(first=FIRST, boundary=BOUNDARY, early=early)
            results = found(truth, n, SETS, start=70_000_000 + 100_000 * number + 1000 * n, parts=("dynamics",))
            cells = []
            for name in (FIRST_INTERIOR, ROWS_COLUMNS):
                said = [str(r.of("dynamics", name)) for r in results]
                counts = [said.count(word) for word in ("stronger early", "stronger late", "steady", "undecided")]
                cells.append(" / ".join(f"{count / len(said):.0%}" for count in counts))
            rows.append(f"| {early:g} at the first step, {2 - early:g} at the last | {n} | " + " | ".join(cells) + " |")
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def power() -> list[str]:
    rows = [
        "| boundary over interior, first over boundary | " + " | ".join(f"{n} prompts" for n in PROMPTS) + " |",
        "|---:|" + "---:|" * len(PROMPTS),
    ]
    curve = np.zeros((2, len(PROMPTS), len(EFFECTS)))
    for j, effect in enumerate(EFFECTS):
        cells = []
        for i, n in enumerate(PROMPTS):
            start = 80_000_000 + 100_000 * j + 1000 * n
            results = found(Truth(first=2 * effect, boundary=effect), n, SETS, start=start)
            said = [result.levels for result in results]
            curve[:, i, j] = said.count(rule.ALL) / len(said), said.count(rule.NONE) / len(said)
            cells.append(" / ".join(f"{share:.0%}" for share in curve[:, i, j]))
        rows.append(f"| {effect:g} | " + " | ".join(cells) + " |")
        print(rows[-1], file=sys.stderr, flush=True)
    draw(curve)
    return rows


def draw(curve: np.ndarray) -> None:
    """Share of data sets called `all three levels`, and `none`, over the size of the steps between levels."""
    with style.paper():
        figure, axes = style.new(style.PAGE, 2.3, 1, 2, sharey=True)
        for panel, values, title in zip(axes[0], curve, (rule.ALL, rule.NONE), strict=True):
            for i, (n, colour) in enumerate(zip(PROMPTS, style.colours(len(PROMPTS)), strict=True)):
                marker = style.markers(len(PROMPTS))[i]
                panel.plot(EFFECTS, values[i], color=colour, marker=marker, label=f"{n} prompts")
            panel.axvline(SMALLEST_EFFECT, color="0.4", linewidth=0.8, linestyle=(0, (4, 2)))
            panel.set(title=f"called “{title}”", xlabel="step from level to level, ln units", ylim=(-0.02, 1.02))
            panel.grid(axis="y")
        axes[0, 0].set_ylabel("share of data sets")
        axes[0, 1].legend(loc="upper right")
        style.save(figure, CURVE.parent, CURVE.stem)
        CURVE.with_suffix(".pdf").unlink()  # the page shows the PNG


TABLES: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "answers": (f"What is said of what is so, {SETS} data sets a row", answers),
    "type_one": (f"No contrast anywhere, {2 * SETS} data sets", type_one),
    "at_margin": (f"A contrast exactly at the smallest effect, {SETS} data sets a row", at_margin),
    "over_time": (f"Dynamics: what is said of early and late, {SETS} data sets a row", over_time),
    "power": (f"Called all three levels / called none, {SETS} data sets a cell", power),
}


def write(measured: dict[str, str]) -> None:
    """Put these tables into the page; the others stay as they are."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    inside, after = rest.split(END)
    parts = [part.removeprefix("**").split("**\n\n", 1) for part in inside.strip().split("\n\n**") if part]
    there = dict(parts)
    texts = [f"**{t}**\n\n{(there | measured)[t]}" for t, _ in TABLES.values() if t in measured | there]
    PAGE.write_text(before + BEGIN + "\n\n" + "\n\n".join(texts) + "\n\n" + END + after, encoding="utf-8")


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/hierarchy.md")
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES), help="which tables")
    arguments = parser.parse_args()
    measured = {}
    for name in arguments.only:
        title, make = TABLES[name]
        measured[title] = "\n".join(make()).strip()
        print(f"**{title}**\n\n{measured[title]}\n", flush=True)
        if arguments.write:
            write(measured)


if __name__ == "__main__":
    main()
