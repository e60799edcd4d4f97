"""`workbench demo`: the whole path on the embedded model, from recording to report."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from rich.console import Console

from workbench.cli import show
from workbench.errors import WorkbenchError

#: Eight prompts, because intervals are over prompts; two seeds of each.
RECORDED = ("red apple", "dog face", "blue heart", "pizza", "cat face", "rocket", "sunflower", "hamburger")
SEEDS = (0, 1)
STEPS, GUIDANCE = 20, 4.0


def demo(stores: Path, reports: Path, model: str = "mini-image") -> Path:
    """Record, locate, follow, derive, sample, report; returns the report's page."""
    from workbench import derive_dg, locate, modulation, sample, save_spec
    from workbench import open as open_store
    from workbench.record import record
    from workbench.report import report
    from workbench.sampling.save import save_comparison

    console, start = Console(), time.monotonic()
    store, folder = stores / "demo.zarr", reports / "demo"

    def step(number: int, text: str) -> None:
        console.print(f"\n[bold]{number}. {text}[/]")

    step(1, f"Record {len(RECORDED) * len(SEEDS)} samples of {model}, every block, every step, both branches")
    record(
        model, prompts=RECORDED, seeds=SEEDS, out=store, steps=STEPS, guidance_scale=GUIDANCE, tier="full", batch_size=8
    )
    recording = open_store(store)
    step(2, "Locate the massive channels")
    show.located(locate(recording))
    step(3, "Follow them along the trajectory")
    show.modulated(modulation(recording))
    step(4, "Derive a Detail Guidance spec")
    try:
        spec = derive_dg(recording)
    except WorkbenchError as error:
        console.print(f"[yellow]{error}[/]")
        page = report(store, folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        show.derived(spec, save_spec(spec, folder / "spec.json", overwrite=True))
        step(5, "Sample without and with it, from the same seeds")
        images = folder / "comparison"
        if images.exists():
            shutil.rmtree(images)
        result = sample(
            model, prompts=RECORDED, seeds=100, spec=spec, modes=("plain", "cfg", "dg", "cfg+dg"), batch_size=8
        )
        show.sampled(save_comparison(result, images).differences, images)
        step(6, "Report")
        page = report(store, folder, spec=spec, comparison=images)
    console.print(f"\nDone in {show.duration(time.monotonic() - start)}. Open [bold]{page}[/] in a browser.")
    return Path(page)
