"""Measure how often the verdict of the trial of STAS is right, and how often wrong; `docs/stas-trial.md` quotes it.

    python -m benchmarks.stas_rates            print the tables
    python -m benchmarks.stas_rates --write    and put them into docs/stas-trial.md, between its markers
    python -m benchmarks.stas_rates --only choice    only those of the choice between settings

Simulated tables (`tests/analysis/steered.py`) go through `workbench.stas_effects` and `stas_choice` themselves. Seeds are fixed.
About ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the simulated tables live with the tests

import numpy as np  # noqa: E402

from tests.analysis.steered import BETTER, DISTANCE, NOISE, simulated  # noqa: E402
from workbench.analysis.inference import proportion_high  # noqa: E402
from workbench.analysis.stas import LEAST, stas_effects  # noqa: E402
from workbench.analysis.stas_choice import stas_choice  # noqa: E402
from workbench.analysis.stas_rule import MOTION  # noqa: E402

PAGE = ROOT / "docs" / "stas-trial.md"
BEGIN, END = "<!-- stas rates: begin -->", "<!-- stas rates: end -->"
BEGIN_CHOICE, END_CHOICE = "<!-- stas choice rates: begin -->", "<!-- stas choice rates: end -->"
FAST: dict[str, Any] = {"resamples": 500, "flips": 1999}
ANSWERS = ("supported", "mixed", "undecided", "not supported")

JUDGED = [name for name, better in BETTER.items() if better]
GAIN = {"temporal_flicker": 0.5, "motion_smoothness": 0.5}


class Row(NamedTuple):
    """A truth, the answers that are wrong there, and how the table is simulated."""

    what: str
    stas: dict[str, float]
    wrong: tuple[str, ...]
    options: dict[str, Any] = {}  # noqa: RUF012
    selective: bool = False


ROWS = (
    Row("no effect", {}, ("supported", "mixed")),
    Row("no effect, 12 prompts", {}, ("supported", "mixed"), {"prompts": 12}),
    Row("no effect, differences vary thrice as much", {}, ("supported", "mixed"), {"noise": 3 * NOISE}),
    Row("no effect, differences vary a third as much", {}, ("supported", "mixed"), {"noise": NOISE / 3}),
    Row("no effect, 4 seeds a prompt", {}, ("supported", "mixed"), {"seeds": 4}),
    Row("one measure gains 0.3", {"temporal_flicker": 0.3}, ("not supported",)),
    Row("two measures gain 0.5", GAIN, ("not supported",)),
    Row("nearer to the training clips by 0.4 sd", {DISTANCE: 0.4}, ("not supported",)),
    Row("every measure loses 0.5", dict.fromkeys(JUDGED, -0.5), ("supported", "mixed")),
    Row("one gains 0.8, one loses 0.8", {"temporal_flicker": 0.8, "first_frame_sharpness": -0.8},
        ("supported", "not supported")),
    Row("two gain 0.5, and the videos move less by 0.8", GAIN | {MOTION: -0.8}, ("supported", "not supported")),
    Row("two gain 0.5, one video in 32 is lost", GAIN, ("supported",), {"lost": 1}),
    Row("against a control: STAS gains 0.5, the control nothing", GAIN, ("not supported",), {"controls": {"low": {}}}, True),
    Row("against a control that gains the same", GAIN, ("supported", "mixed"), {"controls": {"low": GAIN}}, True),
)  # fmt: skip


class Choice(NamedTuple):
    """A truth of one setting besides `NULLS` that do nothing, what is wrong to answer, and how the table is simulated."""

    what: str
    planted: dict[str, float]
    wrong: tuple[str, ...]
    options: dict[str, Any] = {}  # noqa: RUF012
    gauge: str = "own_clip_distance"


NULLS = 5
"""Settings that do nothing: the STAS condition and four of the grid."""

NOTHING = ("the planted", "another")
OWN = {"own_clip_distance": 0.5}
CHOICES = (
    Choice("no effect", {}, NOTHING),
    Choice("no effect, 12 prompts", {}, NOTHING, {"prompts": 12}),
    Choice("no effect, 64 prompts", {}, NOTHING, {"prompts": 64}),
    Choice("no effect, differences vary thrice as much", {}, NOTHING, {"noise": 3 * NOISE}),
    Choice("no effect, by the judged measures", {}, NOTHING, {}, "judged"),
    Choice("no effect, by the distribution", {}, NOTHING, {"reference": True}, DISTANCE),
    Choice("one gains 0.3", {"own_clip_distance": 0.3}, ("another", "not supported")),
    Choice("one gains 0.5", OWN, ("another", "not supported")),
    Choice("one gains 0.5, 64 prompts", OWN, ("another", "not supported"), {"prompts": 64}),
    Choice("one gains 0.5, and moves less by 0.8", OWN | {MOTION: -0.8}, NOTHING),
    Choice("one gains 0.5, and loses 0.8 elsewhere", OWN | {"first_frame_sharpness": -0.8}, NOTHING),
    Choice("one gains 0.5 in four measures, by the judged measures",
           dict.fromkeys(("temporal_flicker", "motion_smoothness", "frame_consistency", "own_clip_distance"), 0.5),
           ("another", "not supported"), {}, "judged"),
)  # fmt: skip


def choices(count: int) -> list[str]:
    """Table of what `stas_choice` answers among `NULLS` settings that do nothing and the planted one."""
    columns = ("the planted", "another", "undecided", "not supported")
    rows = [
        f"| what is so | supported: {' | supported: '.join(columns[:2])} | {' | '.join(columns[2:])} | wrong | at most (95 %) | "
        "gain of the choice: choosing half, other half |",
        "|---|" + "---:|" * (len(columns) + 3),
    ]
    for number, row in enumerate(CHOICES):
        got: Counter[str] = Counter()
        gains = []
        for i in range(count):
            grid: dict[str, dict[str, float]] = {f"nothing {k}": {} for k in range(NULLS - 1)} | {
                "planted": row.planted
            }
            table = simulated(
                {}, {}, grid=grid, seed=9_000_000 + 10_000 * number + i, **({"reference": False} | row.options)
            )
            said = stas_choice(table, gauge=row.gauge, **FAST)
            best = json.loads(said.attrs["best"])
            if "reporting" in best:
                gains.append([best[half]["gain"] for half in ("choosing", "reporting")])
            chosen = "the planted" if said.attrs["choice"] == "planted" else "another"
            got[chosen if said.attrs["verdict"] == "supported" else said.attrs["verdict"]] += 1
        wrong = sum(got[name] for name in row.wrong)
        cells = " | ".join(str(got[name]) for name in columns)
        seen = "{:.2f}, {:.2f} ({})".format(*np.mean(gains, axis=0), len(gains)) if gains else "none chosen"
        rows.append(
            f"| {row.what} | {cells} | {wrong / count:.1%} | {float(proportion_high(np.asarray(wrong), count)):.1%} | {seen} |"
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def answers(count: int) -> list[str]:
    """Table of what is answered, for each truth."""
    rows = [
        f"| what is so | {' | '.join(ANSWERS)} | wrong | at most (95 %) |",
        "|---|" + "---:|" * (len(ANSWERS) + 2),
    ]
    for number, row in enumerate(ROWS):
        got: Counter[str] = Counter()
        for i in range(count):
            options = {"controls": {}} | row.options
            result = stas_effects(simulated(row.stas, seed=100_000 * number + i, **options), **FAST)
            got[
                str(result["verdict"].sel(contrast="stas − low").values) if row.selective else result.attrs["verdict"]
            ] += 1
        wrong = sum(got[name] for name in row.wrong)
        bound = float(proportion_high(np.asarray(wrong), count))
        cells = " | ".join(str(got[a]) for a in ANSWERS)
        rows.append(f"| {row.what} | {cells} | {wrong / count:.1%} | {bound:.1%} |")
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def power(count: int) -> list[str]:
    """Table of how often a gain of one measure is called better, and a gain of nothing equal, by prompts."""
    sizes = (0.1, LEAST, 0.3, 0.5)
    rows = [
        "| prompts | "
        + " | ".join(f"better, gain {s:g}" for s in sizes)
        + " | equal, gain 0 | equal, gain 0, noise a third |",
        "|---:|" + "---:|" * (len(sizes) + 2),
    ]
    for prompts in (12, 32, 64, 128):
        cells = []
        for size, noise, word in [(s, NOISE, "better") for s in sizes] + [
            (0.0, NOISE, "equal"),
            (0.0, NOISE / 3, "equal"),
        ]:
            found = 0
            for i in range(count):
                table = simulated({"own_clip_distance": size}, {}, prompts=prompts, noise=noise, seed=5_000_000 + i)
                said = stas_effects(table, **FAST)["finding"].sel(contrast="stas − plain", measure="own_clip_distance")
                found += str(said.values) == word
            cells.append(f"{found / count:.0%}")
        rows.append(f"| {prompts} | {' | '.join(cells)} |")
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Print the tables; with --write put them into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400, help="simulated tables a row")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", choices=("effects", "choice"), help="one of the two alone")
    options = parser.parse_args()
    if options.only != "choice":
        said = (
            f"{options.count} simulated tables a row, half as many for the power; 32 prompts unless it says otherwise; gains in "
            f"standard deviations of the unsteered videos over prompts, of which {LEAST:g} counts; a paired difference varies by {NOISE:g} "
            "of them (skewed, gamma)."
        )
        _put((BEGIN, END), said, [answers(options.count), power(options.count // 2)], write=options.write)
    if options.only != "effects":
        said = (
            f"{options.count} simulated tables a row, {NULLS} settings without an effect and one that is what the row says; else as above. "
            "In the last column the mean over the tables in which a setting was chosen on one half (how many), whatever was answered then."
        )
        _put((BEGIN_CHOICE, END_CHOICE), said, [choices(options.count)], write=options.write)


def _put(markers: tuple[str, str], said: str, tables: list[list[str]], *, write: bool) -> None:
    text = "\n\n".join("\n".join(table) for table in tables)
    print(text)
    if write:
        words = PAGE.read_text(encoding="utf-8")
        before, after = words.index(markers[0]) + len(markers[0]), words.index(markers[1])
        PAGE.write_text(f"{words[:before]}\n{said}\n\n{text}\n{words[after:]}", encoding="utf-8")


if __name__ == "__main__":
    main()
