"""Measure how often `disruption` gives the right answer, and how often a wrong one; `docs/methods.md` quotes it.

    python -m benchmarks.disruption_rates            print the tables
    python -m benchmarks.disruption_rates --write    and put them into docs/methods.md, between its markers

Simulated runs (`tests/analysis/disrupted.py`): 4 layers, of which 2 lose what the row says. Seeds are fixed. About five
minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the simulated runs live with the tests

from tests.analysis.disrupted import ANSWERS, TRUTHS, Truth, simulated  # noqa: E402
from workbench.analysis.disruption import MARGINS, disruption  # noqa: E402
from workbench.analysis.disruption_verdict import AGREES, upper  # noqa: E402

BEGIN, END = "<!-- disruption rates: begin -->", "<!-- disruption rates: end -->"
Draw = Callable[[np.random.Generator, int], np.ndarray]
LESS = "detail, and content no more than controls"
# The bootstrap draws intervals only; no verdict hangs on it.
FAST: dict[str, Any] = {"resamples": 1, "flips": 999}


def answers(count: int, prompts: int) -> list[str]:
    """Table of what is answered, for each truth."""
    rows = [
        f"| what the massive channels lose ({prompts} prompts) | right answer | right | less, but true | undecided | wrong | which |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for number, (truth, right) in enumerate(ANSWERS.items()):
        got = Counter(
            disruption(simulated(truth, prompts=prompts, seed=100_000 * number + i), **FAST).attrs["verdict"]
            for i in range(count)
        )
        # That content suffers no more than with the controls is true, too, where it does not suffer at all.
        less = got[LESS] if right == "detail only" else 0
        passed = {right, "undecided", *([LESS] if less else [])}
        wrong = {name: got[name] for name in AGREES if got[name] and name not in passed}
        which = ", ".join(f"{name}: {times}" for name, times in wrong.items())
        lost = TRUTHS[truth]
        said = f"{truth}: {lost.massive[0]:g} of detail, {lost.massive[1]:g} of content"
        if lost.equal_norm != Truth((0, 0)).equal_norm:
            said += f" (controls of equal norm {lost.equal_norm[0]:g}, {lost.equal_norm[1]:g})"
        rows.append(
            f"| {said} | {right} | {got[right]} | {less} | {got['undecided']} | {sum(wrong.values())} | {which} |"
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def false_alarms(count: int, prompts: int) -> list[str]:
    """Table of the errors that the level bounds: more than an equal control, through the whole analysis."""
    more = {"detail": 0, "content": 0}
    for i in range(count):
        found = disruption(simulated("as much as equal norm", prompts=prompts, seed=7_000_000 + i), **FAST)
        compared = found["compared"].sel(control="noise")
        for aspect, measures in (("detail", ["edge_energy", "band_power_5"]), ("content", list(MARGINS))):
            more[aspect] += bool((compared.sel(measure=measures) == "more").any())
    return [
        f"| error ({prompts} prompts) | measured | level |",
        "|---|---:|---:|",
        *(f"| more {aspect} lost than with one control that loses as much, any measure at any of 4 layers | {times} of {count} ({times / count:.1%}) | 5 % |"
          for aspect, times in more.items()),
    ]  # fmt: skip


def kept(count: int) -> list[str]:
    """Table of how often a measure is called kept at one layer, its mean loss being the margin itself: an error.

    `upper` is what `disruption` asks. The last two rows have no loss, or a small one, and say how often that is found.
    """
    sizes = (5, 16, 29, 64, 128, 256)
    margin, similarity = MARGINS["recognised"], MARGINS["low_pass_similarity"]

    def recognised(share: float, seeds: int) -> Draw:
        return lambda rng, n: (rng.random((n, seeds)) < share).mean(axis=1)

    def blocks(share: float) -> Draw:  # all seeds of a prompt alike
        return lambda rng, n: (rng.random(n) < share).astype(float)

    rows: list[tuple[str, Draw, float, bool]] = [
        ("`recognised`, a tenth of the pictures lost: error", blocks(margin), margin, True),
        ("the same, 4 seeds, each picture by itself: error", recognised(margin, 4), margin, True),
        ("the same with Student's bound, as a warning: error", blocks(margin), margin, False),
        ("`low_pass_similarity`, normal losses at the margin: error",
         lambda rng, n: rng.normal(similarity, 0.06, n), similarity, False),
        ("the same, exponential losses: error", lambda rng, n: similarity * rng.gamma(1.0, 1.0, n), similarity, False),
        ("`recognised`, no picture lost: found", blocks(0.0), margin, True),
        ("`recognised`, 2 % of the pictures lost: found", blocks(0.02), margin, True),
    ]  # fmt: skip
    lines = ["| called kept at one layer, by prompts | " + " | ".join(map(str, sizes)) + " |"]
    lines.append("|---|" + "---:|" * len(sizes))
    for number, (name, draw, bound, exact) in enumerate(rows):
        cells = []
        for n in sizes:
            rng = np.random.default_rng([9_000_000, number, n])
            values = np.stack([draw(rng, n) for _ in range(10 * count)], axis=1)
            cells.append(f"{(upper(values, alpha=0.05, exact=exact) < bound).mean():.1%}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def power(count: int, prompts: int) -> list[str]:
    """Table of how often a loss of detail of this size is found, and content not called lost."""
    sizes = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
    carried, only, both = [], [], []
    for size in sizes:
        got = []
        for i in range(count):
            found = disruption(simulated(Truth((size, 0.02)), prompts=prompts, seed=3_000_000 + i), **FAST)
            lost = (found["state"].sel(measure=["edge_energy", "band_power_5"]) == "lost").any()
            got.append((str(found.attrs["verdict"]), bool(lost)))
        carried.append(f"{np.mean([lost for _, lost in got]):.0%}")
        only.append(f"{np.mean([name in ('detail only', LESS) for name, _ in got]):.0%}")
        both.append(f"{np.mean([name in ('detail and content', 'content') for name, _ in got]):.0%}")
    rows = [
        f"| loss of detail, 0.02 of content ({prompts} prompts) | " + " | ".join(f"{s:g}" for s in sizes) + " |",
        "|---|" + "---:|" * len(sizes),
        "| a measure of detail is called lost at some layer | " + " | ".join(carried) + " |",
        "| verdict `detail only`, or with content no more than controls | " + " | ".join(only) + " |",
        "| verdict with content: wrong | " + " | ".join(both) + " |",
    ]
    print("\n".join(rows), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Print the tables; with --write put them into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="simulated runs per row")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    tables = [answers(options.count, 64), answers(options.count // 2, 128), false_alarms(2 * options.count, 64)]
    tables += [kept(20 * options.count), power(options.count // 2, 64)]
    text = "\n\n".join("\n".join(table) for table in tables)
    print(text)
    if options.write:
        page = ROOT / "docs" / "methods.md"
        words = page.read_text(encoding="utf-8")
        before, after = words.index(BEGIN) + len(BEGIN), words.index(END)
        page.write_text(
            f"{words[:before]}\n{options.count} simulated runs a row with 64 prompts, {options.count // 2} with 128 and for power.\n\n{text}\n{words[after:]}",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
