"""Measure how often the rule of `sweep` gives the right answer, and how often a wrong one; `docs/methods.md` quotes it.

    python -m benchmarks.sweep_rates            print the tables
    python -m benchmarks.sweep_rates --write    and put them into docs/methods.md, between its markers

Simulated tables (`tests/analysis/swept.py`) go through `workbench.analysis.sweep` itself: two modes of four settings. Seeds are
fixed. Three to five minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the simulated tables live with the tests

from tests.analysis.swept import PER_MODE, Truth, simulated  # noqa: E402
from workbench.analysis.gauge import LEAST, RECOGNISED, SIMILARITY  # noqa: E402
from workbench.analysis.sweep import sweep  # noqa: E402

PAGE = ROOT / "docs" / "methods.md"
BEGIN, END = "<!-- sweep rates: begin -->", "<!-- sweep rates: end -->"
# No verdict hangs on the p-values. 500 resamples instead of 2000, for time.
FAST: dict[str, Any] = {"resamples": 500, "flips": 9}
ANSWERS = ("supported", "undecided", "not supported")

NOTHING = Truth()
ONE = {mode: [NOTHING, Truth(gain=0.2), NOTHING, NOTHING] for mode in ("dg", "cfg+dg")}


class Row(NamedTuple):
    """A truth, and which answers are wrong there."""

    what: str
    settings: Any
    wrong: tuple[str, ...]
    own: bool = True


ROWS = (
    Row("no gain anywhere", NOTHING, ("supported",)),
    Row("over-sharpened: distance up by 0.2, edges by half", Truth(gain=-0.2, edges=0.5), ("supported",)),
    Row(f"every setting gains the smallest that counts, {LEAST:g}", Truth(gain=LEAST), ("supported", "not supported")),
    Row("one setting a mode gains 0.2, the others nothing", ONE, ("not supported",)),
    Row("every setting gains 0.2", Truth(gain=0.2), ("not supported",)),
    Row("gain 0.3, another picture: similarity 0.85", Truth(gain=0.3, drift=0.15), ("supported",)),
    Row(f"gain 0.3, similarity at the margin, {SIMILARITY:g}", Truth(gain=0.3, drift=1 - SIMILARITY), ("supported",)),
    Row("gain 0.3, 30 % of pictures not recognised any more", Truth(gain=0.3, unreadable=0.3), ("supported",)),
    Row(f"gain 0.3, loss of recognition at the margin, {RECOGNISED:.0%}", Truth(gain=0.3, unreadable=RECOGNISED),
        ("supported",)),
    Row("gain 0.3, 5 % of pictures not finite, which is within the margin", Truth(gain=0.3, collapsed=0.05), ()),
    Row("by band powers: no gain anywhere", NOTHING, ("supported",), own=False),
    Row(f"by band powers: every setting gains {LEAST:g} sd", Truth(gain=LEAST), ("supported", "not supported"), own=False),
    Row("by band powers: one setting a mode gains 0.2 sd", ONE, ("not supported",), own=False),
    Row("gain 0.3, 15 % of pictures not finite", Truth(gain=0.3, collapsed=0.15), ("supported",)),
)  # fmt: skip


def answers(count: int, prompts: int) -> list[str]:
    """Table of what is answered, for each truth."""
    rows = [
        f"| what is so ({prompts} prompts) | supported | undecided | not supported | wrong |",
        "|---|---:|---:|---:|---:|",
    ]
    for number, row in enumerate(ROWS):
        got = Counter(
            sweep(simulated(row.settings, prompts=prompts, seed=100_000 * number + i, own=row.own), **FAST).attrs[
                "verdict"
            ]
            for i in range(count)
        )
        wrong = sum(got[name] for name in row.wrong)
        rows.append(f"| {row.what} | {' | '.join(str(got[a]) for a in ANSWERS)} | {wrong / count:.1%} |")
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def power(count: int) -> list[str]:
    """Table of how often a gain of one setting a mode is supported, by its size and the number of prompts."""
    sizes = (0.1, 0.15, 0.2, 0.3)
    rows = [
        "| supported, where one setting a mode gains | " + " | ".join(f"{s:g}" for s in sizes) + " |",
        "|---|" + "---:|" * len(sizes),
    ]
    for prompts in (64, 128):
        cells = []
        for size in sizes:
            settings = {mode: [NOTHING, Truth(gain=size), NOTHING, NOTHING] for mode in ONE}
            found = [
                sweep(simulated(settings, prompts=prompts, seed=5_000_000 + i), **FAST).attrs["verdict"]
                for i in range(count)
            ]
            cells.append(f"{found.count('supported') / count:.0%}")
        rows.append(f"| {prompts} prompts | {' | '.join(cells)} |")
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Print the tables; with --write put them into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="simulated tables a row")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    tables = [answers(options.count, 64), power(options.count // 2)]
    text = "\n\n".join("\n".join(table) for table in tables)
    print(text)
    if options.write:
        words = PAGE.read_text(encoding="utf-8")
        before, after = words.index(BEGIN) + len(BEGIN), words.index(END)
        said = f"{options.count} simulated tables a row, half as many for the power; two modes of {PER_MODE} settings."
        PAGE.write_text(f"{words[:before]}\n{said}\n\n{text}\n{words[after:]}", encoding="utf-8")


if __name__ == "__main__":
    main()
