"""Measure how often `disruption` gives the right answer, and how often a wrong one; `docs/methods.md` quotes it.

    python -m benchmarks.disruption_rates            print the tables
    python -m benchmarks.disruption_rates --write    and put them into docs/methods.md, between its markers

Simulated runs (`tests/analysis/disrupted.py`): 4 layers, of which 2 lose what the row says. Seeds are fixed. About four
minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the simulated runs live with the tests

from tests.analysis.disrupted import ANSWERS, TRUTHS, Truth, simulated  # noqa: E402
from workbench.analysis import inference  # noqa: E402
from workbench.analysis.disruption import disruption  # noqa: E402
from workbench.analysis.disruption_verdict import AGREES  # noqa: E402

BEGIN, END = "<!-- disruption rates: begin -->", "<!-- disruption rates: end -->"
LESS = "detail, and content no more than controls"
# The bootstrap draws intervals only; no verdict hangs on it.
FAST = {"resamples": 1, "flips": 999}


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
    """Table of the errors that the level bounds: more than an equal control, and kept at the margin itself."""
    more = {"detail": 0, "content": 0}
    for i in range(count):
        found = disruption(simulated("as much as equal norm", prompts=prompts, seed=7_000_000 + i), **FAST)
        p = found["p_corrected"].sel(control=["noise"])
        for aspect in more:
            more[aspect] += bool((p.sel(measure=aspect) < 0.05).any())
    kept = {"normal": 0, "skewed as above": 0}
    for i in range(10 * count):
        rng = np.random.default_rng(9_000_000 + i)
        losses = {"normal": rng.normal(0.05, 0.06, prompts), "skewed as above": 0.05 * rng.gamma(1.0, 1.0, prompts)}
        for name, values in losses.items():
            kept[name] += bool(inference.equivalence(values, margin=0.05).high < 0.05)

    def row(what: str, times: int, of: int, level: str) -> str:
        return f"| {what} | {times} of {of} ({times / of:.1%}) | {level} |"

    return [
        f"| error ({prompts} prompts) | measured | level |",
        "|---|---:|---:|",
        row("more detail lost than with one control that loses as much, in any of 4 layers", more["detail"], count, "5 %"),
        row("the same, content", more["content"], count, "5 %"),
        row("content called kept at one layer, its mean loss being the margin; normal losses", kept["normal"], 10 * count, "5 %"),
        row("the same, exponential losses", kept["skewed as above"], 10 * count, "5 %"),
    ]  # fmt: skip


def power(count: int, prompts: int) -> list[str]:
    """Table of how often a loss of detail of this size is called that."""
    sizes = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
    rows = [
        f"| loss of detail, content kept ({prompts} prompts) | " + " | ".join(f"{s:g}" for s in sizes) + " |",
        "|---|" + "---:|" * len(sizes),
    ]
    cells = []
    for size in sizes:
        got = [
            disruption(simulated(Truth((size, 0.02)), prompts=prompts, seed=3_000_000 + i), **FAST).attrs["verdict"]
            for i in range(count)
        ]
        cells.append(f"{np.mean([name.startswith('detail') for name in got]):.0%}")
    rows.append("| called detail (not with content) | " + " | ".join(cells) + " |")
    print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Print the tables; with --write put them into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="simulated runs per row")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    tables = [answers(options.count, 64), answers(options.count, 16), false_alarms(options.count, 64)]
    tables.append(power(options.count // 2, 64))
    text = "\n\n".join("\n".join(table) for table in tables)
    print(text)
    if options.write:
        page = ROOT / "docs" / "methods.md"
        words = page.read_text(encoding="utf-8")
        before, after = words.index(BEGIN) + len(BEGIN), words.index(END)
        page.write_text(
            f"{words[:before]}\n{options.count} simulated runs a row.\n\n{text}\n{words[after:]}", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
