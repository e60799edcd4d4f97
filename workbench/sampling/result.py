"""What the sampler returns: images or videos with everything that is needed to make them again."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workbench.errors import WorkbenchError
from workbench.store.video_files import FPS, save_video

MODES = {
    "plain": "conditional prediction alone",
    "cfg": "classifier-free guidance (CFG)",
    "dg": "Detail Guidance (DG) without CFG",
    "cfg+dg": "CFG and DG",
    "stas": "STAS without CFG",
    "cfg+stas": "CFG and STAS",
}
"""Modes of the sampler, and what they are."""


@dataclasses.dataclass(frozen=True)
class SampleResult:
    """Images or videos of one run.

    Attributes
    ----------
    images : array of uint8, (mode, sample, y, x, rgb), or (mode, sample, frame, y, x, rgb) of videos
    latents : array of float32, (mode, sample, channel, y, x), or (mode, sample, channel, frame, y, x)
        Final latents, before decoding; (mode, sample, token, channel) where the pipeline packs them.
    modes : tuple of str
        Of `MODES`, along the first axis.
    prompts, seeds : tuple
        Along the second axis.
    settings : dict
        JSON-able: model fingerprint, steps, guidance scale, the spec without its evidence, and so on.
    """

    images: npt.NDArray[np.uint8]
    latents: npt.NDArray[np.float32]
    modes: tuple[str, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: dict[str, Any]

    @property
    def video(self) -> bool:
        """Whether these are videos."""
        return self.images.ndim == 6

    def of(self, mode: str) -> npt.NDArray[np.uint8]:
        """Return the images or videos of one mode, (sample, ..., y, x, rgb)."""
        if mode not in self.modes:
            raise WorkbenchError(f"there are no images of mode {mode!r}; there are {', '.join(self.modes)}.")
        images: npt.NDArray[np.uint8] = self.images[self.modes.index(mode)]
        return images

    def title(self, mode: str) -> str:
        """Return a short label of a mode with its numbers, for a column of a grid."""
        spec = self.settings.get("spec") or {}
        scale, weight = f"CFG s={self.settings['guidance_scale']:g}", spec.get("weight", 0)
        alphas = [spec.get(f"alpha_{role}") for role in ("first", "boundary")]
        steered = {
            "dg": f"DG w={weight:g}" if isinstance(weight, (int, float)) else "DG, w by noise level",
            "stas": f"STAS α={'/'.join('–' if alpha is None else f'{alpha:g}' for alpha in alphas)}",
        }
        parts = [scale if part == "cfg" else steered.get(part, part) for part in mode.split("+")]
        return " + ".join(parts)

    def save(self, folder: str | Path, *, overwrite: bool = False, fps: float = FPS) -> Path:
        """Write one PNG an image and `settings.json`; of a video its frames in one PNG, and an animated WebP.

        Both are lossless. The PNG holds every frame (`workbench.store.video_files.frames_of` takes it apart again); a WebP shows
        equal frames in a row as one that lasts longer.

        Parameters
        ----------
        folder : str or Path
            Made if it isn't there.
        overwrite : bool
            Write into a folder that has a `settings.json` already.
        fps : float
            Frames a second that the WebP plays at.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        WorkbenchError
            If the folder holds an earlier result and `overwrite` is False, or can't be written.
        """
        from PIL import Image

        folder = Path(folder)
        if (folder / "settings.json").exists() and not overwrite:
            raise WorkbenchError(
                f"{folder} holds images of an earlier run. Choose another folder, or pass overwrite=True."
            )
        files = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for m, mode in enumerate(self.modes):
                for i, (prompt, seed) in enumerate(zip(self.prompts, self.seeds, strict=True)):
                    # The running number keeps two prompts apart that differ only in what a file name can't hold.
                    stem = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40]
                    name = f"{i:03d}_{stem}_seed{seed}_{mode.replace('+', '-')}.png"
                    row: dict[str, Any] = {"file": name, "mode": mode, "prompt": prompt, "seed": seed}
                    if self.video:
                        row["animation"] = save_video(self.images[m, i], folder / name, fps=fps).name
                    else:
                        Image.fromarray(self.images[m, i]).save(folder / name)
                    files.append(row)
            text = json.dumps({"settings": self.settings, "images": files}, indent=2, ensure_ascii=False) + "\n"
            (folder / "settings.json").write_text(text, encoding="utf-8")
        except OSError as error:
            raise WorkbenchError(f"cannot write to {folder}: {error.strerror}. Choose another folder.") from error
        return folder
