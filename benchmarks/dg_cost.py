"""What does Detail Guidance cost? Time of a denoising step in each mode, on an embedded model.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/dg_cost.py            about 45 s on one core
    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/dg_cost.py --write    and puts the table into docs/spec.md

Modes take turns, so that a machine that slows down slows all of them; a time is the median over rounds and steps. With
one thread on a CPU it is CPU time, so that other processes count little; else it is wall time. Which channels are masked
does not matter to the time, so the spec is made by hand, at the middle block.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from dg_defaults import write

from workbench.models import call_arguments, fingerprint, layout_for, load_pipeline
from workbench.steering.attach import apply
from workbench.steering.spec import DetailGuidanceSpec

BEGIN, END = "<!-- dg cost: begin -->", "<!-- dg cost: end -->"
#: Mode → (guidance scale, weight or None for no spec).
MODES: dict[str, tuple[float, float | None]] = {
    "CFG": (4.0, None),
    "CFG, a spec attached that does not act (w = 0)": (4.0, 0.0),
    "CFG + DG": (4.0, 1.0),
    "no guidance": (1.0, None),
    "DG without CFG": (1.0, 1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-image")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true", help="put the table into docs/spec.md")
    options = parser.parse_args()
    pipe = load_pipeline(options.model)
    pipe.set_progress_bar_config(disable=True)
    spec = by_hand(pipe)
    rounds: dict[str, list[np.ndarray]] = {mode: [] for mode in MODES}
    for _ in range(options.rounds + 1):
        for mode, (scale, weight) in MODES.items():
            rounds[mode].append(timed(pipe, spec, scale, weight, options.images))
    # The first round warms up, and so does the first step of every call: its time holds the encoding of the prompts.
    seconds = {mode: float(np.median([steps[1:] for steps in kept[1:]])) for mode, kept in rounds.items()}
    threads, kind = torch.get_num_threads(), "CPU" if clock(pipe) is time.process_time else "wall"
    text = (
        f"Measured by `benchmarks/dg_cost.py` on {options.model} ({len(pipe.transformer.transformer_blocks)} blocks, "
        f"{options.images} images, {pipe.transformer.device.type}, {threads} thread{'s' if threads > 1 else ''}, {kind} "
        f"time, medians of {options.rounds} rounds):\n\n| step with | ms | × CFG step |\n|---|---|---|\n"
    ) + "\n".join(f"| {m} | {1000 * s:.0f} | {s / seconds['CFG']:.2f} |" for m, s in seconds.items())
    print(text)
    if options.write:
        write(text, BEGIN, END)


def by_hand(pipe: Any) -> DetailGuidanceSpec:
    """A spec that masks one channel before the middle block."""
    paths = layout_for(pipe).block_paths(pipe.transformer)
    return DetailGuidanceSpec.create(
        model={"family": layout_for(pipe).family, **fingerprint(pipe)}, layer=paths[len(paths) // 2], channels=[0],
        action="zero", retention=None, branch="cond", weight=1.0, window={"unit": "sigma", "low": 0.0, "high": 1.0},
        recommended={"guidance_scale": None, "steps": None},
        evidence={"criterion": None, "parameters": {}, "store": {}, "n_samples": None, "channels": [],
                  "rule": "by hand, to measure time", "provenance": {}, "notes": {}},
        created_by={},
    )  # fmt: skip


def clock(pipe: Any) -> Callable[[], float]:
    """CPU time where that is the time of the work, else wall time."""
    alone = pipe.transformer.device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def timed(pipe: Any, spec: DetailGuidanceSpec, scale: float, weight: float | None, images: int) -> np.ndarray:
    """Seconds of each step of one call."""
    arguments = call_arguments(pipe, [("red apple", i) for i in range(images)], steps=5, guidance_scale=scale)
    now = clock(pipe)
    ends = [now()]

    def note(_pipe: Any, _step: int, _t: Any, _kwargs: dict[str, Any]) -> dict[str, Any]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        ends.append(now())
        return {}

    def run() -> None:
        ends[0] = now()
        pipe(**arguments, output_type="latent", callback_on_step_end=note)

    if weight is None:
        run()
    else:
        with apply(spec.replace(weight=weight), pipe):
            run()
    return np.diff(ends)


if __name__ == "__main__":
    main()
