"""Write what the videos of `mini-video` are measured by: statistics of its training clips, and the prompts of studies.

``python -m workbench.sampling.clip_reference --work FOLDER`` where FOLDER holds the training set, as
``python -m workbench.models.mini.video fetch`` builds it. No network judges videos; only these numbers do.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from workbench.models.mini import JUDGES
from workbench.models.mini.data import default_work
from workbench.models.mini.video import data
from workbench.sampling.clip_statistics import clip_statistics
from workbench.sampling.semantic import PROMPTS, REFERENCE

BACKGROUNDS = 3
"""Every clip is described on so many random backgrounds; those of one caption are averaged."""
STUDY = 48
"""Prompts of studies."""

README = """# What mini-video's videos are measured by

Made by `python -m workbench.sampling.clip_reference`.

* `reference.json`: band powers in space and time of the {clips} training clips, each on {backgrounds} random backgrounds
  (`workbench.sampling.clip_statistics`), and of each clip alone.
* `study-prompts.txt`: {study} of the {clips} captions, drawn at random (seed 0), chosen before any of them was generated.

There is no network here: what a clip shows is not judged. The clips are Microsoft's animated Fluent emoji (MIT, see
`../mini-video/LICENSE-fluentui-emoji-animated`); these files hold numbers only.
"""


def write(work: Path, target: Path) -> Path:
    """Describe the training set in `work` and write the three files into `target`; returns it."""
    clips = data.build(work)
    videos, captions = [], []
    for row, caption in enumerate(clips.captions):
        for background in range(BACKGROUNDS):
            # Other random numbers than training's, which are [variant, row].
            shown = data.on_background(clips.rgba[row], np.random.default_rng([1000 + background, row]))
            videos.append(((shown.transpose(1, 2, 3, 0) + 1) * 127.5).round().astype(np.uint8))
            captions.append(caption)
    source = f"{len(clips.captions)} training clips of mini-video, each on {BACKGROUNDS} random backgrounds"
    reference = clip_statistics(videos, captions, source=source)
    target.mkdir(parents=True, exist_ok=True)
    (target / REFERENCE).write_text(json.dumps(_rounded(reference), ensure_ascii=False) + "\n", encoding="utf-8")
    rows = sorted(np.random.default_rng(0).choice(len(clips.captions), STUDY, replace=False).tolist())
    head = f"# {STUDY} of {len(clips.captions)} captions, drawn at random (seed 0).\n"
    (target / PROMPTS).write_text(head + "\n".join(clips.captions[row] for row in rows) + "\n", encoding="utf-8")
    text = README.format(clips=len(clips.captions), backgrounds=BACKGROUNDS, study=STUDY)
    (target / "README.md").write_text(text, encoding="utf-8")
    return target


def _rounded(value: object) -> object:
    """Numbers with six significant digits: enough, and half the bytes."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def main(argv: list[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m workbench.sampling.clip_reference", description=__doc__)
    parser.add_argument("--work", type=Path, default=default_work().with_name("mini-video"))
    parser.add_argument("--target", type=Path, default=JUDGES["mini-video"])
    args = parser.parse_args(argv)
    print(write(args.work, args.target))


if __name__ == "__main__":
    main()
