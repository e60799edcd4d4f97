"""What recording costs: time and peak memory against the plain pipeline call and against raw hooks + np.save.

Every variant runs in a process of its own, in turn, several rounds; ratios are of medians within one run. Prints the table
that stands in docs/benchmarks.md and writes it as JSON.

    python benchmarks/recording.py [--model mini-image] [--steps 20] [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPTS = ["red apple", "dog face", "blue heart", "pizza", "cat face", "rocket", "sunflower", "hamburger"]
VARIANTS = ("plain", "stats", "hooks", "full")
TITLES = {
    "plain": "plain pipeline call",
    "stats": "workbench, tier stats",
    "hooks": "raw hooks + np.save, same states",
    "full": "workbench, tier full",
}


def measure(variant: str, model: str, steps: int, batch: int, repeats: int) -> dict[str, float]:
    """Time one variant in this process: the best of some generations after a warm-up, and the peak memory."""
    import torch

    from workbench.models import call_arguments, generate, load_pipeline
    from workbench.record import make_settings, record

    torch.set_num_threads(1)  # even timings on a shared machine
    pipe = load_pipeline(model, device="cpu")
    settings = make_settings(PROMPTS[:batch], [0], steps=steps, batch_size=batch)

    def once(folder: Path) -> None:
        if variant in ("stats", "full"):
            record(pipe, prompts=PROMPTS[:batch], seeds=0, steps=steps, batch_size=batch, tier=variant,
                   out=folder / "s.zarr", progress=False)  # fmt: skip
        elif variant == "hooks":
            hooked(pipe, call_arguments(pipe, settings.samples, **settings.call), folder)
        else:
            generate(pipe, call_arguments(pipe, settings.samples, **settings.call))

    wall, cpu = [], []
    for _ in range(1 + repeats):
        folder = Path(tempfile.mkdtemp())  # always anew: overwriting and removing files has a price of its own
        start = time.perf_counter(), time.process_time()
        once(folder)
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
        shutil.rmtree(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": min(wall[1:]), "cpu": min(cpu[1:]), "peak_mb": peak}  # the first warms up


def hooked(pipe: Any, arguments: dict[str, Any], folder: Path) -> None:
    """What people write today: a forward hook on every block that saves the image stream to a file."""
    import numpy as np

    from workbench.models import generate

    handles, counts = [], {}

    def save(name: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            counts[name] = counts.get(name, -1) + 1
            np.save(folder / f"{name}-{counts[name]}.npy", output[1].detach().cpu().numpy())

        return hook

    for i, block in enumerate(pipe.transformer.transformer_blocks):
        handles.append(block.register_forward_hook(save(f"block{i}")))
    generate(pipe, arguments)
    for handle in handles:
        handle.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini-image")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=VARIANTS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.model, options.steps, options.batch, options.repeats)))
        return
    results: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(options.rounds):
        for variant in VARIANTS:
            results[variant].append(run(options, variant, options.steps))
    long = {variant: run(options, variant, 50)["peak_mb"] for variant in ("plain", "stats", "full")}
    short = {variant: run(options, variant, 5)["peak_mb"] for variant in ("plain", "stats", "full")}
    table = [
        {
            "variant": variant,
            "wall_s": statistics.median(r["wall"] for r in rounds),
            "cpu_s": statistics.median(r["cpu"] for r in rounds),
            "wall_ratio": statistics.median(
                r["wall"] / p["wall"] for r, p in zip(rounds, results["plain"], strict=True)
            ),
            "cpu_ratio": statistics.median(r["cpu"] / p["cpu"] for r, p in zip(rounds, results["plain"], strict=True)),
            "peak_mb": statistics.median(r["peak_mb"] for r in rounds),
        }
        for variant, rounds in results.items()
    ]
    print(f"{options.model}, {options.batch} samples, {options.steps} steps, {options.rounds} rounds, one thread\n")
    print("| | wall s | CPU s | wall ÷ plain | CPU ÷ plain | peak MB |\n|---|---|---|---|---|---|")
    for row in table:
        print(
            f"| {TITLES[row['variant']]} | {row['wall_s']:.2f} | {row['cpu_s']:.2f} | {row['wall_ratio']:.2f} | "
            f"{row['cpu_ratio']:.2f} | {row['peak_mb']:.0f} |"
        )
    print("\nPeak memory in MB at 5 and at 50 steps: " + "; ".join(
        f"{TITLES[v]} {short[v]:.0f} and {long[v]:.0f}" for v in short
    ))  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps({"table": table, "peak_5": short, "peak_50": long}, indent=1) + "\n")


def run(options: argparse.Namespace, variant: str, steps: int) -> dict[str, float]:
    """One variant in a fresh process, so that peak memory is its own."""
    command = [sys.executable, __file__, "--one", variant, "--model", options.model, "--steps", str(steps),
               "--batch", str(options.batch), "--repeats", str(options.repeats)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
