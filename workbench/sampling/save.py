"""A comparison as a folder: images, numbers, and the labelled grid, which a report can take up."""

from __future__ import annotations

from pathlib import Path

from workbench.sampling.compare import Comparison, caption, compare, comparison_figure, counted
from workbench.sampling.result import SampleResult

#: More rows than this make a grid nobody reads; all images are in the folder anyway.
_ROWS = 8


def save_comparison(result: SampleResult, folder: str | Path, *, overwrite: bool = False) -> Comparison:
    """Write images, `settings.json`, `images.csv`, `differences.csv`, `comparison.png` and `.pdf`, `caption.txt`.

    Parameters
    ----------
    result : SampleResult
        From `sample`, with at least two modes.
    folder : str or Path
        Made if it isn't there.
    overwrite : bool
        Replace an earlier result in the folder.

    Returns
    -------
    Comparison
        The numbers that were written.
    """
    folder = result.save(folder, overwrite=overwrite)
    comparison = compare(result)
    comparison.save(folder)
    count = len(result.prompts)
    # Evenly over the samples, so that every prompt has its turn.
    shown = sorted(
        {round(i * (count - 1) / max(_ROWS - 1, 1)) for i in range(_ROWS)} if count > _ROWS else range(count)
    )
    figure = comparison_figure(result, samples=shown)
    figure.savefig(folder / "comparison.png", dpi=200, metadata={"Software": None})
    figure.savefig(folder / "comparison.pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    more = f" {len(shown)} of {count} samples are shown." if len(shown) < count else ""
    text = caption(result).replace("\n", ". ")
    (folder / "caption.txt").write_text(f"{text}. {counted(result.prompts)}.{more}\n", encoding="utf-8")
    return comparison
