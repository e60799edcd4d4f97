"""What `workbench demo` and `workbench study` run: the study of a model's kind, of images or of videos."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from workbench.cli import show, study_video
from workbench.cli import study as study_image
from workbench.models import EMBEDDED


def demo(stores: Path, reports: Path) -> list[Path]:
    """Run the small studies of the embedded models; returns the reports' pages."""
    start = time.monotonic()
    Console().rule("Images: mini-image")
    pages = [study_image.study("mini-image", study_image.DEMO, stores / "demo", reports / "demo")]
    if (EMBEDDED["mini-video"] / "model_index.json").is_file():  # it is still being trained
        Console().rule("Videos: mini-video")
        pages += [
            study_video.study_video("mini-video", study_video.DEMO, stores / "demo-video", reports / "demo-video")
        ]
    Console().print(
        f"\nAll done in {show.duration(time.monotonic() - start)}: [bold]{' and '.join(map(str, pages))}[/]."
    )
    return pages


def study(model: str, stores: Path, reports: Path, *, page: Path | None = None, yes: bool = False) -> Path:
    """Run the full study of a model, see `study.study` and `study_video.study_video`; returns the report's page."""
    from workbench import load_pipeline
    from workbench.models import makes_videos

    if makes_videos(load_pipeline(model)):
        return study_video.study_video(model, study_video.FULL, stores, reports, page=page, yes=yes)
    return study_image.study(model, study_image.FULL, stores, reports, page=page, yes=yes)
