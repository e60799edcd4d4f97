"""How the measures of a video answer to what is done to real clips, and the training clips' statistics.

    python -m benchmarks.video_measures --work FOLDER     a few minutes
    python -m benchmarks.measures --text-only                                then puts the numbers into docs/measures.md

FOLDER is the data folder of mini-video (`workbench.models.mini.video.data.build`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workbench.models.mini.video import data
from workbench.sampling.clip_statistics import clip_statistics, distance
from workbench.sampling.measures import blur
from workbench.sampling.video_measures import VIDEO_TABLE, video_measures

NUMBERS = Path(__file__).with_suffix(".json")
SOME = 48
SHOWN = ("temporal_flicker", "motion_smoothness", "frame_consistency", "first_frame_consistency", "chunk_jump",
         "first_frame_sharpness", "first_frame_relative_sharpness", "sharpness", "frame_difference", "temporal_power_0",
         "clip_distance")  # fmt: skip
SOURCE = "{count} training clips of mini-video (animated Fluent emoji), each on one random background, 64 px, 17 frames"


def videos_of(work: Path, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Every training clip on a background of its own, uint8 (N, 17, 64, 64, 3), and the captions."""
    clips, generator = data.build(work), np.random.default_rng(seed)
    made = [data.on_background(np.asarray(rgba), generator).transpose(1, 2, 3, 0) for rgba in clips.rgba]
    return np.round((np.stack(made) + 1) * 127.5).astype(np.uint8), clips.captions


def disturbances() -> dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]]:
    """What is done to a clip, float (F, y, x, 3) in [0, 1]."""

    def each(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Any:
        return lambda video, rng: np.stack([change(frame, rng) for frame in video])

    def first_blurred(width: float) -> Any:
        return lambda video, rng: np.concatenate([blur(video[0], width)[None], video[1:]])

    def jittered(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.roll(frame, tuple(rng.integers(-1, 2, 2)), axis=(0, 1))

    def seams(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chunk = np.array([0, *(1 + np.arange(len(video) - 1) // 4)])
        return video + 0.03 * np.where(chunk % 2, 1.0, -1.0)[:, None, None, None]

    alternate: Callable[[np.ndarray], np.ndarray] = lambda v: (-1.0) ** np.arange(len(v))[:, None, None, None]  # noqa: E731
    return {
        "none": lambda v, rng: v,
        "brightness alternates by 0.02": lambda v, rng: v + 0.02 * alternate(v),
        "brightness alternates by 0.05": lambda v, rng: v + 0.05 * alternate(v),
        "chunks differ by 0.06": seams,
        "moved at random by up to 1 px": each(jittered),
        "noise sd 0.05, new in every frame": each(lambda f, rng: f + 0.05 * rng.standard_normal(f.shape)),
        "first frame blurred by 1 px": first_blurred(1.0),
        "first frame blurred by 2 px": first_blurred(2.0),
        "every frame blurred by 1 px": each(lambda f, rng: blur(f, 1.0)),
        "frames shuffled": lambda v, rng: v[rng.permutation(len(v))],
        "first frame repeated": lambda v, rng: np.repeat(v[:1], len(v), axis=0),
        "half as fast": lambda v, rng: v[np.arange(len(v)) // 2],
        "brightness at random, sd 0.02": lambda v, rng: v + 0.02 * rng.standard_normal(len(v))[:, None, None, None],
        "half as fast, brightness alternates by 0.05": lambda v, rng: v[np.arange(len(v)) // 2] + 0.05 * alternate(v),
        "half the contrast to the mean frame": lambda v, rng: (v + v.mean(axis=0)) / 2,
        "first frame repeated, brightness alternates by 0.05": lambda v, rng: v[:1] + 0.05 * alternate(v),
    }


def run(work: Path) -> dict[str, Any]:
    """Numbers of the section."""
    videos, captions = videos_of(work)
    reference = clip_statistics(videos, captions, source=SOURCE.format(count=len(videos)))
    rng = np.random.default_rng(1)
    some = np.sort(rng.choice(len(videos), SOME, replace=False))
    rows = {}
    for name, change in disturbances().items():
        made = np.clip(np.stack([change(videos[i] / 255, rng) for i in some]), 0, 1)
        made = np.round(made * 255).astype(np.uint8)
        found = video_measures(made, [captions[i] for i in some], reference=reference)
        rows[name] = {key: float(np.nanmean(found[key])) for key in SHOWN} | {"distribution": distance(made, reference)}
        print(name, flush=True)
    clips = {key: reference[key] for key in ("measures", "mean", "spread", "clips", "source")}
    return {"some": SOME, "rows": rows, "reference": clips}


def section(n: dict[str, Any]) -> str:
    """Text of the section on videos in docs/measures.md."""
    direction = {1: "higher", -1: "lower", 0: "–"}
    table = ["| measure | kind | unit | better | what it is | source |", "|---|---|---|---|---|---|"]
    table += [
        f"| `{name}` | {r.kind} | {r.unit or '–'} | {direction[r.better]} | {r.label}: {r.equation.replace('|', chr(92) + '|')} | {r.source} |"
        for name, r in VIDEO_TABLE.items()
    ]
    shown = (*SHOWN, "distribution")
    head = "| what is done | " + " | ".join(f"`{name}`" if name != "distribution" else "`distance`" for name in shown)
    rows = [f"{head} |", "|---|" + "---:|" * len(shown)]
    rows += [f"| {name} | " + " | ".join(f"{row[key]:.3g}" for key in shown) + " |" for name, row in n["rows"].items()]
    clips = ["| measure | mean | sd over clips |", "|---|---:|---:|"]
    clips += [
        f"| `{name}` | {row['mean']:.3g} | {row['spread']:.3g} |" for name, row in n["reference"]["measures"].items()
    ]
    return TEXT.format(
        table="\n".join(table), rows="\n".join(rows), clips="\n".join(clips), some=n["some"], count=n["reference"]["clips"],
        source=n["reference"]["source"],
    )  # fmt: skip


TEXT = """## Measures of a video

From `workbench.sampling.video_measures.VIDEO_TABLE` and `benchmarks/video_measures.json`.

```python
from workbench.sampling.video_measures import clip_statistics, distance, video_measures

numbers = video_measures(videos, prompts, plain_SFYX3=plain, reference=reference)  # (samples, frame, y, x, rgb)
reference = clip_statistics(real_clips, captions)  # JSON-able; a model's is its reference.json
```

{table}

They follow VBench (Huang et al. 2024) without its networks, so that nothing is downloaded: frames are interpolated by block matching and
not by a network, and likeness is correlation after a blur and not a cosine of DINO features. Their values are not VBench's. Larger frames
than 127 px are averaged down for the motion.

* A video that stands still is perfectly steady, smooth and alike. Read them beside `temporal_power_0`, how much changes slowly: flicker
  adds little to it, where it multiplies `frame_difference` (below). `workbench.stas_effects` calls gains of videos in which less
  changes slowly *mixed*. It does not see that a motion of the same extent is slower.
* `clip_distance` is the distance to the *mean* clip: real clips lie about 1 from it, so nothing is judged by it. `distance`, of a set
  of videos, is between the distribution of the features (kind *statistic*) over the videos and that over the clips, in the clips'
  standard deviations; it does not see what is in the picture, and is biased upwards for few videos.
* `chunk_jump` is 0 where the seams between latent frames don't show (the first pixel frame alone, then four at a time). Below 0 the
  video jumps within its chunks (as at half the speed, below), so neither direction is better and nothing is judged by it.
* `distance` weighs every feature by its spread over the clips. The first frame of a real clip is nearly as sharp as the others, so a first
  frame that is not weighs more than anything else.

What they answer to, means over {some} of the {count} clips drawn at random:

{rows}

The clips themselves ({source}):

{clips}
"""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    NUMBERS.write_text(json.dumps(run(args.work), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
