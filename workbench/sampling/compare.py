"""Compare modes sample by sample: a table of numbers, paired differences with intervals, and a labelled grid.

Videos are compared as images are, by the measures of `workbench.sampling.temporal`; their grid is in `compare_video`.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.analysis import inference
from workbench.errors import WorkbenchError
from workbench.sampling.measures import MEASURES, low_pass_similarity
from workbench.sampling.result import SampleResult
from workbench.sampling.temporal import VIDEO_MEASURES, video_similarity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRS = (("cfg", "plain"), ("dg", "plain"), ("cfg+dg", "cfg"), ("stas", "plain"), ("cfg+stas", "cfg"))
"""Which mode is compared with which: each is the other with one guidance more."""

REFERENCES = ("cfg", "plain")
"""Low-pass similarity is to the image of the same sample in the first of these modes that there is."""

NUMBERS = ("mean", "mean_against", "difference", "low", "high")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Numbers of a result.

    Attributes
    ----------
    table : DataFrame
        One row per image or video: sample, prompt, seed, mode, and a column per measure (units: `workbench.sampling.measures`,
        of a video `workbench.sampling.video_measures`);
        `low_pass_similarity` is to the same sample in the mode named in ``table.attrs["reference"]``.
    differences : DataFrame
        One row per pair of modes and measure: mode, against, measure, n (replicates), `replicate` (what they are),
        n_samples, mean of the first, mean of the second, paired `difference`, and the bounds `low` and `high` of its
        interval, NaN if n < `inference.MINIMUM_SAMPLES`. Samples of one prompt are not independent, so the replicates
        are prompts, each the mean of its samples; the seeds if there is only one prompt, and what is found then holds
        for that prompt. `low_pass_similarity` is here that of the two modes to each other; `mean_against` is the 1 of
        an equal image.
    """

    table: pd.DataFrame
    differences: pd.DataFrame

    def save(self, folder: str | Path) -> list[Path]:
        """Write `images.csv` and `differences.csv` into an existing folder, replacing older ones."""
        folder = Path(folder)
        paths = [folder / "images.csv", folder / "differences.csv"]
        try:
            self.table.to_csv(paths[0], index=False)
            self.differences.to_csv(paths[1], index=False)
        except OSError as error:
            raise WorkbenchError(f"cannot write to {folder}: {error}. Choose a folder that exists.") from error
        return paths


def compare(result: SampleResult, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Comparison:
    """Measure every image, and what each guidance changes from the same noise.

    Parameters
    ----------
    result : SampleResult
        From `sample`.
    confidence : float
        Of the intervals: bootstrap of the mean paired difference, resampling replicates
        (`inference.bootstrap_mean`). They hold for the seeds that were used.
    resamples, seed : int
        Of the bootstrap.

    Returns
    -------
    Comparison
        The same result gives the same numbers.
    """
    table = image_table(result)
    measures, similarity = measures_of(result)
    samples = len(result.prompts)
    wide = table.pivot(index="sample", columns="mode")
    rows = []
    for mode, against in PAIRS:
        if mode not in result.modes or against not in result.modes:
            continue
        pairs = {name: (wide[name][mode].to_numpy(), wide[name][against].to_numpy()) for name in measures}
        similar = [similarity(a, b) for a, b in zip(result.of(mode), result.of(against), strict=True)]
        pairs["low_pass_similarity"] = np.array(similar), np.ones(samples)
        for measure, both in pairs.items():
            # Columns: the first mode, the second, their difference; rows: samples, then replicates.
            three_SX = np.stack([*both, both[0] - both[1]], axis=1)
            three_RX, names = inference.by_prompt(three_SX, result.prompts)
            found = inference.bootstrap_mean(three_RX, confidence=confidence, resamples=resamples, seed=seed)
            numbers = [*found.mean, found.low[2], found.high[2]]
            counts = {"n": len(three_RX), "replicate": "prompt" if len(names) > 1 else "seed", "n_samples": samples}
            rows.append(
                {"mode": mode, "against": against, "measure": measure, **counts}
                | {name: float(number) for name, number in zip(NUMBERS, numbers, strict=True)}
            )
    head = ["mode", "against", "measure", "n", "replicate", "n_samples"]
    differences = pd.DataFrame(rows, columns=[*head, *NUMBERS])
    differences.attrs = {"confidence": confidence, "resamples": resamples, "seed": seed}
    return Comparison(table, differences)


def measures_of(
    result: SampleResult,
) -> tuple[Mapping[str, Callable[[Any], float]], Callable[[Any, Any], float]]:
    """Measures of one image or video alone by name, and the similarity of two."""
    return (VIDEO_MEASURES, video_similarity) if result.video else (MEASURES, low_pass_similarity)


def image_table(result: SampleResult) -> pd.DataFrame:
    """Return the measures of every image or video, one row each; see `Comparison`."""
    measures, similarity = measures_of(result)
    reference = next((mode for mode in REFERENCES if mode in result.modes), result.modes[0])
    rows = []
    for i, (prompt, seed) in enumerate(zip(result.prompts, result.seeds, strict=True)):
        for m, mode in enumerate(result.modes):
            image = result.images[m, i]
            rows.append(
                {
                    "sample": i,
                    "prompt": prompt,
                    "seed": seed,
                    "mode": mode,
                    **{name: measure(image) for name, measure in measures.items()},
                    "low_pass_similarity": similarity(image, result.of(reference)[i]),
                }
            )
    table = pd.DataFrame(rows)
    table.attrs = {"reference": reference}
    return table


def comparison_figure(result: SampleResult, *, samples: Sequence[int] | None = None, inches: float = 1.5) -> Figure:
    """Draw samples as rows and modes as columns, every image whole and at one scale.

    Of videos a row is one sample in one mode, and the columns are frames (`compare_video.video_figure`).

    Parameters
    ----------
    result : SampleResult
        From `sample`.
    samples : sequence of int, optional
        Which samples; default all.
    inches : float
        Width of one image on paper.

    Returns
    -------
    Figure
        Not shown and not known to pyplot; ``figure.savefig(path)`` writes it.
    """
    from matplotlib.figure import Figure

    if result.video:
        from workbench.sampling.compare_video import video_figure

        return video_figure(result, samples=samples, words=caption(result))
    rows = list(range(len(result.prompts)) if samples is None else samples)
    height, width = result.images.shape[2:4]
    image_x, image_y = inches, inches * height / width
    gap, left, top = 0.06, 1.3, 0.34
    size_x = left + len(result.modes) * (image_x + gap)
    # 0.5 em is the average width of a letter, at 6.5 points; the text is wrapped so that it stays on the page.
    words = "\n".join(
        line for part in caption(result).split("\n") for line in textwrap.wrap(part, int(size_x * 72 / (6.5 * 0.55)))
    )
    bottom = 0.14 + 0.125 * (words.count("\n") + 1)
    size_y = top + len(rows) * (image_y + gap) + bottom
    figure = Figure(figsize=(size_x, size_y), facecolor="white")

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / size_x, y / size_y, text, **style)

    for r, i in enumerate(rows):
        y = size_y - top - (r + 1) * image_y - r * gap
        label = "\n".join(textwrap.wrap(result.prompts[i], 17, max_lines=4, placeholder=" …"))
        write(left - 0.1, y + image_y / 2 + 0.02, label, ha="right", va="bottom", fontsize=8)
        write(left - 0.1, y + image_y / 2 - 0.03, f"seed {result.seeds[i]}", ha="right", va="top", fontsize=7,
              color="0.45")  # fmt: skip
        for c, mode in enumerate(result.modes):
            x = left + c * (image_x + gap)
            axes = figure.add_axes((x / size_x, y / size_y, image_x / size_x, image_y / size_y))
            # Small images are enlarged smoothly, as a viewer does; pixel blocks would look like detail.
            axes.imshow(result.of(mode)[i], interpolation="bicubic", aspect="auto")
            axes.set(xticks=[], yticks=[])
            for side in axes.spines.values():
                side.set(linewidth=0.5, color="0.75")
            if r == 0:
                axes.set_title(result.title(mode), fontsize=9, pad=4)
    write(size_x / 2, 0.07, words, ha="center", va="bottom", fontsize=6.5, color="0.35", linespacing=1.35)
    return figure


def counted(prompts: Sequence[str]) -> str:
    """Return in words how many samples there are and what an interval over them is taken over."""
    distinct, samples = len(set(prompts)), len(prompts)
    if distinct == 1:
        return f"n = {samples} seed{'s' if samples > 1 else ''} of one prompt"
    seeds = samples // distinct
    return f"n = {distinct} prompts × {seeds} seed{'s' if seeds > 1 else ''}"


def caption(result: SampleResult) -> str:
    """Return what the grid was made with, in one or two lines."""
    settings = result.settings
    size = f"{settings['width']} × {settings['height']} px"
    first = f"{settings['steps']} steps, {size}, {settings['dtype']}; columns start from the same noise"
    if settings.get("num_frames"):
        first = first.replace(" px,", f" px, {settings['num_frames']} frames,").replace("columns", "modes")
    spec = settings.get("spec")
    if not spec:
        return first
    channels = ", ".join(map(str, spec["channels"][:6])) + (", …" if len(spec["channels"]) > 6 else "")
    window = spec["window"]
    where = (
        ""
        if (window["low"], window["high"]) == (0, 1)
        else f", {window['unit']} {window['low']:g} to {window['high']:g}"
    )
    plural = "s" if len(spec["channels"]) > 1 else ""
    if spec.get("method") == "stas":
        layers = ", ".join(map(str, spec["layers"][:4])) + (", …" if len(spec["layers"]) > 4 else "")
        done = "zeroed" if spec["action"] == "zero" else f"{spec['action']}ed".replace("eed", "ed")
        roles = [role for role in ("first", "boundary", "interior") if spec.get(f"alpha_{role}") is not None]
        passes = " and ".join(spec["branches"])
        return f"{first}\nSTAS: channel{plural} {channels} {done} after {layers}, tokens {', '.join(roles)}, {passes}{where}"
    return f"{first}\nDG: channel{plural} {channels} zeroed before {spec['layer']}{where}"
