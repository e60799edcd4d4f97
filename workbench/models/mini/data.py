"""Training data of ``mini-image``: Microsoft's Fluent 3D emoji as captioned 64 px pictures.

Pictures come from the npm package ``@lobehub/fluent-emoji-3d`` (art: Microsoft fluentui-emoji, MIT), names
(CLDR short names) from the npm package ``unicode-emoji-json`` (MIT). Both are fetched with ``npm pack``, so
whatever registry the user's npm client is configured for is the one that is asked.
"""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from pathlib import Path

import numpy as np

PICTURES = "@lobehub/fluent-emoji-3d@1.1.0"
NAMES = "unicode-emoji-json@0.8.0"
SIZE = 64
"""Side of a training picture in pixels."""

MIT_NOTICE = """\
The pictures that mini-image was trained on are Microsoft's Fluent emoji
(https://github.com/microsoft/fluentui-emoji), used under this licence:

MIT License

Copyright (c) Microsoft Corporation.

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE
"""

_SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
# Microsoft's README excludes these from the MIT grant or marks them as trademarks of others.
_EXCLUDED = {"1f4bb", "1f3ae", "1f579", "1f4ce", "1f587"}
_NATIONAL_FLAG = re.compile(r"^1f1(e[6-9a-f]|f[0-9a-f])-1f1")
_SUBDIVISION_FLAG = re.compile(r"^1f3f4-e00")


def default_work() -> Path:
    """Folder for downloads and checkpoints: ``$XDG_CACHE_HOME/ma-workbench/mini`` or the like."""
    import os

    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ma-workbench" / "mini"


def unpack(spec: str, into: Path) -> Path:
    """Fetch one npm package with the user's own client and unpack it; return its ``package`` folder."""
    target = into / "package"
    if target.is_dir():
        return target
    into.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["npm", "pack", spec, "--silent"], cwd=into, check=True, capture_output=True, text=True, shell=False
    )
    with tarfile.open(into / done.stdout.strip().splitlines()[-1]) as archive:
        archive.extractall(into, filter="data")
    return target


def fetch(work: Path) -> tuple[Path, Path]:
    """Download (once) the picture and the name package.

    Returns
    -------
    pictures, names
        The folder of ``<code points>.webp`` files and the JSON file of names by emoji.
    """
    pictures = unpack(PICTURES, work / "e3d") / "assets"
    names = unpack(NAMES, work / "npm") / "data-by-emoji.json"
    return pictures, names


def wanted(stem: str) -> bool:
    """Whether the picture named by code points ``stem`` belongs to the training set."""
    parts = set(stem.split("-"))
    if parts & _SKIN_TONES or parts & _EXCLUDED:
        return False
    if _NATIONAL_FLAG.match(stem) or _SUBDIVISION_FLAG.match(stem):
        return False
    # "man pilot" and "woman pilot" are near copies of "pilot": fewer pictures, seen more often, come out clearer.
    return not ("200d" in parts and (parts & {"2640", "2642"} or parts & {"1f468", "1f469"}))


def caption(name: str) -> str:
    """CLDR short name as a caption: lower case, plain words."""
    text = name.lower().replace("’", "'").replace("“", "").replace("”", "")
    text = re.sub(r"[:,()!.&/]", " ", text).replace("-", " ")
    return " ".join(text.split())


def names_by_code(path: Path) -> dict[str, str]:
    """Captions by code points (hexadecimal, joined by ``-``, variation selectors left out)."""
    table = json.loads(path.read_text(encoding="utf-8"))
    return {key("-".join(f"{ord(c):x}" for c in emoji)): caption(row["name"]) for emoji, row in table.items()}


def key(stem: str) -> str:
    """Code points without the variation selector, which packages write inconsistently."""
    return "-".join(f"{int(p, 16):x}" for p in stem.split("-") if p != "fe0f")


def load_picture(path: Path, size: int = SIZE) -> np.ndarray:
    """One picture on white, as ``uint8`` of shape (size, size, 3)."""
    from PIL import Image

    with Image.open(path) as image:
        rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    # Composite before scaling: scaling straight alpha would drag the colour of invisible pixels into edges.
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB").resize((size, size), Image.Resampling.LANCZOS))


def build(work: Path) -> tuple[np.ndarray, list[str], list[str]]:
    """Build (once) the training set.

    Returns
    -------
    pixels
        ``uint8`` array of shape (N, 64, 64, 3).
    captions
        N captions.
    codes
        N file stems (code points), to find the original.
    """
    store, index = work / "pixels.npy", work / "captions.json"
    if not (store.exists() and index.exists()):
        pictures, names = fetch(work)
        table = names_by_code(names)
        # One file per key: a few pictures come twice, with and without the variation selector.
        found = {key(p.stem): p for p in sorted(pictures.glob("*.webp")) if wanted(p.stem)}
        paths = [found[key] for key in sorted(found) if key in table]
        pixels = np.stack([load_picture(p) for p in paths])
        rows = {"captions": [table[key(p.stem)] for p in paths], "codes": [p.stem for p in paths]}
        np.save(store, pixels)
        index.write_text(json.dumps(rows, indent=0), encoding="utf-8")
    rows = json.loads(index.read_text(encoding="utf-8"))
    return np.load(store), rows["captions"], rows["codes"]
