"""Training clips of ``mini-video``: Microsoft's animated Fluent emoji as captioned 64 px clips of 17 frames.

The clips come from the npm packages ``@lobehub/fluent-emoji-anim-1`` to ``-4`` (art: Microsoft
fluentui-emoji-animated, MIT), the captions are their CLDR names, as in `workbench.models.mini.data`. A clip keeps its
transparency: every time it is shown, it lies on another background, so that the edge of the picture is not always
white (on white, image edges look like frame boundaries).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import data

PACKAGES = tuple(f"@lobehub/fluent-emoji-anim-{n}@1.0.0" for n in (1, 2, 3, 4))
SIZE = 64
"""Side of a training clip in pixels."""
FRAMES = 17
"""Pixel frames of a clip: the first alone, then four chunks of four."""
STRIDE = 3
"""Every third frame of the originals (24 frames a second) is kept."""
FPS = 8
PICTURE = 54
"""Side of the emoji inside its clip: the rest is background, and room for shifts."""
MARGIN = (SIZE - PICTURE) // 2
MIN_MOTION = 0.012
"""Smallest mean absolute difference of neighbouring frames, on [0, 1], of a clip that is kept."""
_MIN_FRAMES = 24
# People are small and alike at 64 px, and 24 clock faces differ in their hands only: fewer subjects, seen more often,
# come out clearer.
_LEFT_OUT = {
    *("person", "people", "man", "woman", "men", "women", "busts", "bust", "family", "couple", "o'clock", "thirty"),
    *("boy", "girl", "baby", "child", "older", "guard", "detective", "prince", "princess", "selfie", "kiss", "breast"),
    *("middle", "mantelpiece", "cockroach", "superhero", "supervillain", "mage", "elf", "merperson", "genie"),
}


@dataclass(frozen=True)
class Clips:
    """The training set: ``rgba`` is ``uint8`` (N, 17, 54, 54, 4) with straight alpha; N captions and code points."""

    rgba: np.ndarray
    captions: list[str]
    codes: list[str]


def fetch(work: Path) -> tuple[list[Path], Path]:
    """Download (once) the clip packages and the names; returns the folders of clips and the JSON file of names."""
    folders = [data.unpack(spec, work / f"anim-{n}") / "assets" for n, spec in enumerate(PACKAGES, start=1)]
    return folders, data.unpack(data.NAMES, work / "npm") / "data-by-emoji.json"


def wanted(stem: str, caption: str) -> bool:
    """Whether the clip named by code points ``stem`` belongs to the training set.

    Joined sequences (technologists, couples) are left out too: they are the ones that Microsoft's repository of
    animated emoji, whose licence is cited, does not have.
    """
    return data.wanted(stem) and "200d" not in stem.split("-") and not _LEFT_OUT & set(caption.split())


def motion(frames: np.ndarray) -> np.ndarray:
    """Mean absolute difference of neighbouring frames on white, on [0, 1]; (F, H, W, 4) ``uint8`` to (F - 1,)."""
    alpha = frames[..., 3:].astype(np.float32) / 255
    shown = frames[..., :3] / 255 * alpha + (1 - alpha)
    return np.abs(np.diff(shown, axis=0)).mean(axis=(1, 2, 3))


def liveliest(frames: np.ndarray) -> np.ndarray:
    """The 17 frames, three apart, with most motion; a loop that is too short goes on from its start."""
    moved = motion(np.concatenate([frames, frames[:1]]))
    span = STRIDE * (FRAMES - 1)
    starts = range(max(1, len(frames) - span))
    start = max(starts, key=lambda s: moved[s : s + span].sum())
    return frames[(start + STRIDE * np.arange(FRAMES)) % len(frames)]


def load_clip(path: Path) -> np.ndarray | None:
    """All frames of one clip at 54 px, ``uint8`` (F, 54, 54, 4), or None if it hardly moves."""
    from PIL import Image, ImageSequence

    with Image.open(path) as opened:
        if getattr(opened, "n_frames", 1) < _MIN_FRAMES:
            return None
        frames = []
        for image in ImageSequence.Iterator(opened):
            # Scaling with premultiplied alpha keeps the colour of invisible pixels out of the edges.
            small = image.convert("RGBA").convert("RGBa").resize((PICTURE, PICTURE), Image.Resampling.BOX)
            frames.append(np.asarray(small.convert("RGBA")))
    return np.stack(frames)


def build(work: Path) -> Clips:
    """Build (once) the training set in the folder ``work``."""
    store, index = work / "clips.npy", work / "captions.json"
    if not (store.exists() and index.exists()):
        folders, names = fetch(work)
        table = data.names_by_code(names)
        found = {data.key(p.stem): p for folder in folders for p in sorted(folder.glob("*.webp"))}
        rows: dict[str, list] = {"captions": [], "codes": []}
        clips = []
        for key in sorted(found):
            if key not in table or not wanted(found[key].stem, table[key]):
                continue
            frames = load_clip(found[key])
            if frames is None:
                continue
            clip = liveliest(frames)
            if motion(clip).mean() < MIN_MOTION:
                continue
            clips.append(clip)
            rows["captions"].append(table[key])
            rows["codes"].append(found[key].stem)
        np.save(store, np.stack(clips))
        index.write_text(json.dumps(rows, indent=0), encoding="utf-8")
    rows = json.loads(index.read_text(encoding="utf-8"))
    return Clips(np.load(store, mmap_mode="r"), rows["captions"], rows["codes"])


def on_background(rgba: np.ndarray, generator: np.random.Generator, frames: int = FRAMES) -> np.ndarray:
    """One clip on a background of its own, somewhere in the picture.

    Parameters
    ----------
    rgba
        ``uint8`` (17, 54, 54, 4).
    generator
        Draws the two colours of the background (a gradient from top to bottom or from side to side) and the place.
    frames
        How many of the first frames are wanted.

    Returns
    -------
    ``float32`` (3, frames, 64, 64) in [-1, 1].
    """
    top, bottom = generator.uniform(0.15, 1.0, (2, 3))
    bottom = 0.6 * top + 0.4 * bottom
    ramp = np.linspace(0, 1, SIZE)[:, None, None]
    plane = np.broadcast_to(top + (bottom - top) * ramp, (SIZE, SIZE, 3))
    if generator.random() < 0.5:
        plane = plane.transpose(1, 0, 2)
    dy, dx = generator.integers(0, 2 * MARGIN + 1, 2)
    out = np.repeat(plane[None].astype(np.float32), frames, axis=0)
    alpha = rgba[:frames, ..., 3:].astype(np.float32) / 255
    hole = out[:, dy : dy + PICTURE, dx : dx + PICTURE]
    out[:, dy : dy + PICTURE, dx : dx + PICTURE] = rgba[:frames, ..., :3] / np.float32(255) * alpha + hole * (1 - alpha)
    return np.ascontiguousarray(out.transpose(3, 0, 1, 2)) * 2 - 1
