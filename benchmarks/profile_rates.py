"""Measure how often `profile` proposes a boundary width where there is none, and how often it finds one; `docs/profile.md` quotes it.

    python -m benchmarks.profile_rates            print the tables
    python -m benchmarks.profile_rates --write    and put them into docs/profile.md, between its markers

Simulated are the profiles of prompts (ln |h| by latent frame and place), 5 frames of 8 × 8 tokens, and what `profile` does with
them after reading (`workbench.analysis.profile_rule.propose`). Seeds are fixed. About five minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from workbench.analysis.profile_rule import FOUND, VERDICTS, Proposal, Sampling, propose

ROOT = Path(__file__).resolve().parents[1]
#: Fewer resamples of prompts than the default: they decide on the plateau only.
FAST = Sampling(resamples=500)
BEGIN, END = "<!-- profile rates: begin -->", "<!-- profile rates: end -->"
FRAMES, ROWS, COLUMNS = 5, 8, 8
FRAME, ROW, COLUMN = np.indices((FRAMES, ROWS, COLUMNS))
PLACE = (ROW * COLUMNS + COLUMN).astype(float)
DISTANCE = np.minimum(PLACE, ROWS * COLUMNS - 1 - PLACE)
FAR_ROW, FAR_COLUMN = (np.abs(2.0 * at / (n - 1) - 1.0) for at, n in ((ROW, ROWS), (COLUMN, COLUMNS)))


@dataclass(frozen=True)
class Video:
    """What is in the simulated profiles, in ln units of |h|.

    Attributes
    ----------
    own, common : float
        Standard deviation over places of what one prompt shows, half of which moves from frame to frame, and of what all prompts have
        in common at their places (drawn anew for every data set).
    waves : float
        Largest number of half waves of that content over the height and the width of the frame.
    token : float
        Of single tokens.
    size, spread : float
        What is planted, and its standard deviation over prompts.
    """

    own: float = 0.15
    common: float = 0.15
    waves: float = 1.0
    token: float = 0.05
    size: float = 0.25
    spread: float = 0.08


def content(rng: np.random.Generator, count: int, sd: float, waves: float) -> np.ndarray:
    """Waves over the frame, half of which move on from frame to frame; (count, F, H, W)."""
    out = np.zeros((count, FRAMES, ROWS, COLUMNS))
    for moves in (0.0, 1.0):
        for _ in range(3):
            a, b, phase, speed = rng.uniform(-1.0, 1.0, (4, count, 1, 1, 1))
            turn = np.pi * waves * (a * ROW / ROWS + b * COLUMN / COLUMNS) + np.pi * phase + 0.7 * moves * speed * FRAME
            out += sd / np.sqrt(3.0) * np.cos(turn)
    return out


def planted(kind: str, width: float) -> np.ndarray:
    """Shape of what is planted, of size 1; (F, H, W)."""
    later = 1.0 * (FRAME > 0)
    if kind == "decay":
        return np.asarray(2.0 * later * np.exp(-DISTANCE / width))
    return {
        "nothing": 0.0 * later,
        "boundary": later * (width > DISTANCE),
        "first frame": 2.0 * (1.0 - later),
        "drift": FRAME / (FRAMES - 1.0),
        "image edges": 1.0 * ((FAR_ROW == 1) | (FAR_COLUMN == 1)),
        "image rows": 1.0 * (FAR_ROW == 1),
        "vignette": ((FAR_ROW**2 + FAR_COLUMN**2) / 2.0) ** 2,
        "head only": later * (width > PLACE),
    }[kind]


def simulated(video: Video, kind: str, width: float, prompts: int, seed: list[int]) -> Proposal:
    """The proposal from one data set."""
    rng = np.random.default_rng(seed)
    x = content(rng, prompts, video.own, video.waves) + content(rng, 1, video.common, video.waves)
    x = x + (video.size + video.spread * rng.standard_normal((prompts, 1, 1, 1))) * planted(kind, width)
    x = (x + video.token * rng.standard_normal(x.shape)).reshape(prompts, FRAMES, ROWS * COLUMNS)
    return propose(x[:, 1:].mean(axis=1), x[:, 0], ROWS, COLUMNS, FAST)


NULLS: Mapping[str, tuple[Video, str, float]] = {
    "nothing; smooth content": (Video(), "nothing", 0),
    "nothing; no content, tokens alone differ": (Video(own=0.0, common=0.0, token=0.15), "nothing", 0),
    "nothing; content twice as strong": (Video(own=0.3, common=0.3), "nothing", 0),
    "nothing; content with up to 2 half waves": (Video(waves=2.0), "nothing", 0),
    "nothing; content with up to 4 half waves": (Video(waves=4.0), "nothing", 0),
    "the first frame": (Video(), "first frame", 0),
    "a drift over frames": (Video(), "drift", 0),
    "corners darker (a vignette)": (Video(), "vignette", 0),
    "first and last rows and columns of the image": (Video(), "image edges", 0),
    "the same, twice as strong": (Video(size=0.5), "image edges", 0),
    "first and last rows of the image (sky, ground)": (Video(), "image rows", 0),
}
OTHERS: Mapping[str, tuple[Video, str, float]] = {
    "the head alone, 8 tokens": (Video(), "head only", 8),
    "decays from both ends, over 4 tokens": (Video(), "decay", 4),
    "decays from both ends, over 8 tokens": (Video(), "decay", 8),
}


def verdicts(cases: Mapping[str, tuple[Video, str, float]], count: int, prompts: int, number: int) -> list[str]:
    """Table of what is said where no boundary of one width is planted: every proposal is false."""
    rows = [
        f"| what is there ({prompts} prompts) | {' | '.join(VERDICTS)} |",
        "|---|" + "---:|" * len(VERDICTS),
    ]
    for i, (name, (video, kind, width)) in enumerate(cases.items()):
        got = Counter(simulated(video, kind, width, prompts, [number, i, prompts, s]).verdict for s in range(count))
        rows.append(f"| {name} | " + " | ".join(f"{got[v] / count:.1%}" if got[v] else "0" for v in VERDICTS) + " |")
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def recovered(count: int, prompts: int) -> list[str]:
    """Table of what comes of planted widths."""
    rows = [
        f"| planted, ln units ({prompts} prompts) | width | proposed | of these the right width | within its interval, always |",
        "|---|---:|---:|---:|---:|",
    ]
    cases = [(0.25, width, Video()) for width in (1, 2, 4, 6, 8, 12, 16, 20)]
    cases += [(size, 8, Video()) for size in (0.05, 0.1, 0.15, 0.4)]
    cases += [(0.25, 8, Video(waves=2.0)), (0.25, 8, Video(waves=4.0))]
    for i, (size, width, video) in enumerate(cases):
        found = [
            simulated(replace(video, size=size), "boundary", width, prompts, [77, i, prompts, s]) for s in range(count)
        ]
        said = [p for p in found if p.verdict == FOUND]
        right = f"{np.mean([p.width == width for p in said]):.1%}" if said else "-"
        inside = np.mean([p.low <= width <= p.high for p in found])
        waves = f"; content with up to {video.waves:g} half waves" if video.waves != 1 else ""
        rows.append(f"| {size:g}{waves} | {width} | {len(said) / count:.1%} | {right} | {inside:.1%} |")
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Print the tables; with --write put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="simulated data sets a row")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    tables = [verdicts({**NULLS, **OTHERS}, options.count, prompts, 5) for prompts in (8, 24)]
    tables += [recovered(options.count, prompts) for prompts in (8, 24)]
    text = "\n\n".join("\n".join(table) for table in tables)
    print(text)
    if options.write:
        page = ROOT / "docs" / "profile.md"
        words = page.read_text(encoding="utf-8")
        before, after = words.index(BEGIN) + len(BEGIN), words.index(END)
        page.write_text(
            f"{words[:before]}\n{options.count} data sets a row.\n\n{text}\n{words[after:]}", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
