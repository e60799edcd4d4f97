"""What a timestep-swap costs: seconds a cell and sample, beside a plain loop of the same forward passes.

Every variant runs in this process, in turn, several rounds; the numbers are medians over the rounds of CPU seconds. The
plain loop keeps nothing and writes nothing. Prints a table and writes it as JSON.

    python benchmarks/swap_cost.py [--model mini-image] [--steps 20] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPTS = ["red apple", "dog face", "blue heart", "pizza", "cat face", "rocket", "sunflower", "hamburger"]
SEEDS, BATCH, GRID = [0, 1], 8, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-image")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    import torch

    from workbench.models import load_pipeline

    torch.set_num_threads(1)  # even timings on a shared machine
    pipe = load_pipeline(arguments.model, device="cpu")
    samples, cells = len(PROMPTS) * len(SEEDS), GRID * GRID
    rounds: dict[str, list[float]] = {name: [] for name in ("generation", "plain", "stats", "full")}
    for _ in range(arguments.rounds):
        calls, seconds = caught(pipe, arguments.steps)
        rounds["generation"].append(seconds)
        rounds["plain"].append(timed(plain_cells, pipe, calls))
        for tier in ("stats", "full"):
            whole = timed(recorded, pipe, arguments.steps, tier)
            rounds[tier].append(whole - seconds)
    generation, *others = ({"name": n, "seconds": statistics.median(v)} for n, v in rounds.items())
    plain = others[0]["seconds"]
    print(
        f"{arguments.model}, {samples} samples in batches of {BATCH}, grid {GRID} ({cells} cells), 1 thread, CPU seconds"
    )
    print(f"generation before the cells: {generation['seconds']:.1f} s ({arguments.steps} steps)")
    for row in others:
        row["ms a cell and sample"] = 1000 * row["seconds"] / (cells * samples)
        row["ratio"] = row["seconds"] / plain
        print(f"{row['name']:>8}: {row['seconds']:6.2f} s, {row['ms a cell and sample']:6.2f} ms, × {row['ratio']:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"generation": generation, "rows": others, "rounds": rounds}, indent=1))


def timed(work: Callable[..., Any], *arguments: Any) -> float:
    """CPU seconds of all threads: on a shared machine the wall clock says more about the others."""
    start = time.process_time()
    work(*arguments)
    return time.process_time() - start


def batches() -> list[list[tuple[str, int]]]:
    pairs = [(prompt, seed) for prompt in PROMPTS for seed in SEEDS]
    return [pairs[i : i + BATCH] for i in range(0, len(pairs), BATCH)]


def caught(pipe: Any, steps: int) -> tuple[list[list[dict[str, Any]]], float]:
    """Batch → calls at the steps of the grid; and the seconds that the generation took."""
    from workbench.models import call_arguments, generate
    from workbench.record.cells import grid_steps

    chosen, found, start = grid_steps(GRID, steps), [], time.process_time()
    for batch in batches():
        calls: list[dict[str, Any]] = []
        handle = pipe.transformer.register_forward_pre_hook(
            lambda module, args, kwargs, calls=calls: calls.append(kwargs), with_kwargs=True
        )
        generate(pipe, call_arguments(pipe, batch, steps=steps, guidance_scale=4.0))
        handle.remove()
        found.append([calls[step] for step in chosen])
    return found, time.process_time() - start


def plain_cells(pipe: Any, caught: list[list[dict[str, Any]]]) -> None:
    import torch

    with torch.no_grad():
        for calls in caught:
            for call in calls:
                for other in calls:
                    pipe.transformer(**{**call, "timestep": other["timestep"]})


def recorded(pipe: Any, steps: int, tier: str) -> None:
    from workbench.record import record

    folder = Path(tempfile.mkdtemp())
    try:
        record(pipe, prompts=PROMPTS, seeds=SEEDS, steps=steps, guidance_scale=4.0, batch_size=BATCH, tier=tier,
               experiment="timestep-swap", grid=GRID, out=folder / "s.zarr", progress=False)  # fmt: skip
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
