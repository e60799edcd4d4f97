"""What does Detail Guidance cost? Time of a denoising step in each mode, and the memory it takes.

    OMP_NUM_THREADS=1 python benchmarks/dg_cost.py            about 4 min on one core
    OMP_NUM_THREADS=1 python benchmarks/dg_cost.py --write    and puts the tables into docs/benchmarks.md

Modes take turns, in one order and then the other, so that a machine that slows down slows all of them; a ratio is the
median over rounds of the ratio within a round. With one thread on a CPU it is CPU time, so that other processes count
little; else it is wall time. Peak memory is taken in a process of its own for every mode: how far the resident set (on a
GPU: what is allocated) rises during the call, looked at every millisecond. Which channels are edited does not matter to the time,
so the spec is made by hand, at the middle block.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from workbench.models import call_arguments, fingerprint, layout_for, load_pipeline
from workbench.steering.attach import apply
from workbench.steering.spec import DetailGuidanceSpec

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- dg cost: begin -->", "<!-- dg cost: end -->"
#: Mode → (guidance scale, weight or None for no spec).
MODES: dict[str, tuple[float, float | None]] = {
    "CFG": (4.0, None),
    "CFG, spec attached, w = 0": (4.0, 0.0),
    "CFG + DG": (4.0, 1.0),
    "no guidance": (1.0, None),
    "DG without CFG": (1.0, 1.0),
}


class Case(NamedTuple):
    """One table: a model, images a batch, steps a call, rounds, modes."""

    model: str
    images: int
    steps: int
    rounds: int
    modes: tuple[str, ...]


CASES = (
    Case("mini-image", 1, 6, 9, tuple(MODES)),
    Case("mini-image", 8, 4, 5, tuple(MODES)),
    Case("random", 1, 1, 3, ("CFG", "CFG + DG")),
)
#: Memory does not depend on the number of blocks, so few suffice.
MEMORY = (Case("mini-image", 8, 2, 1, tuple(MODES)), Case("random, 4 blocks", 1, 1, 1, ("CFG", "CFG + DG")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    parser.add_argument("--peak", nargs=2, type=json.loads, help=argparse.SUPPRESS)  # [case, mode], for a child process
    options = parser.parse_args()
    if options.peak:
        print(peak(MEMORY[options.peak[0]], options.peak[1]))
        return
    threads, kind = torch.get_num_threads(), "CPU" if clock() is time.process_time else "wall"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    head = (
        f"{device}, {threads} torch thread{'s' if threads > 1 else ''}, {kind} time a step; the edit is at half depth."
    )
    text = "\n\n".join([f"Measured on {head}", *map(timing, CASES), memory()])
    print(text)
    if options.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def load(model: str) -> Any:
    """The embedded model, or a random one: 12 blocks, 1152 channels, 1024 image and 77 text tokens."""
    if model.startswith("random"):
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from tests.tiny import tiny_pipeline

        pipe = tiny_pipeline(
            vae=False, num_layers=4 if "4 blocks" in model else 12, attention_head_dim=72, num_attention_heads=16,
            caption_projection_dim=1152, sample_size=64, pos_embed_max_size=64,
        )  # fmt: skip
        pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    else:
        pipe = load_pipeline(model)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def by_hand(pipe: Any) -> DetailGuidanceSpec:
    """A spec that edits one channel before the middle block."""
    paths = layout_for(pipe).block_paths(pipe.transformer)
    return DetailGuidanceSpec.create(
        model={"family": layout_for(pipe).family, **fingerprint(pipe)}, layer=paths[len(paths) // 2], channels=[0],
        action="zero", retention=None, branch="cond", weight=1.0, window={"unit": "sigma", "low": 0.0, "high": 1.0},
        recommended={"guidance_scale": None, "steps": None},
        evidence={"criterion": None, "parameters": {}, "store": {}, "n_samples": None, "channels": [],
                  "rule": "by hand, to measure time", "provenance": {}, "notes": {}},
        created_by={},
    )  # fmt: skip


def encode(prompts: Any) -> dict[str, torch.Tensor]:
    """Random embeddings of 77 tokens for the random model, so that nothing but the transformer takes time."""
    rows, generator = len(prompts), torch.Generator().manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens, pooled = (torch.randn(shape, generator=generator).to(device) for shape in ((rows, 77, 24), (rows, 16)))
    return {"prompt_embeds": tokens, "pooled_prompt_embeds": pooled,
            "negative_prompt_embeds": -tokens, "negative_pooled_prompt_embeds": -pooled}  # fmt: skip


def clock() -> Callable[[], float]:
    """CPU time where that is the time of the work, else wall time."""
    alone = not torch.cuda.is_available() and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def seconds(pipe: Any, case: Case, mode: str, spec: DetailGuidanceSpec) -> float:
    """Median time of a step of one call; the first of several is left out, as it holds the encoding of the prompts."""
    scale, weight = MODES[mode]
    encoder = encode if case.model.startswith("random") else None
    samples = [("red apple", i) for i in range(case.images)]
    arguments = call_arguments(pipe, samples, steps=case.steps, guidance_scale=scale, encode=encoder)
    now = clock()
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
    taken = np.diff(ends)
    return float(np.median(taken[1:] if len(taken) > 1 else taken))


def timing(case: Case) -> str:
    """One table of times."""
    pipe = load(case.model)
    spec = by_hand(pipe)
    rounds: list[dict[str, float]] = []
    for i in range(case.rounds + (case.steps > 1)):
        order = case.modes if i % 2 == 0 else case.modes[::-1]
        rounds.append({mode: seconds(pipe, case, mode, spec) for mode in order})
    rounds = rounds[len(rounds) - case.rounds :]  # where calls are short, the first round only warms up
    config = pipe.transformer.config
    width, tokens = (
        config.num_attention_heads * config.attention_head_dim,
        (config.sample_size // config.patch_size) ** 2,
    )
    lines = [
        f"{case.model}: {config.num_layers} blocks, {width} channels, {tokens} image tokens, "
        f"{case.images} image{'s' if case.images > 1 else ''} a batch, medians of {case.rounds} rounds:",
        "",
        "| step with | ms | × CFG step | lowest … highest |",
        "|---|---|---|---|",
    ]
    for mode in case.modes:
        ratios = [times[mode] / times["CFG"] for times in rounds]
        middle = 1000 * np.median([times[mode] for times in rounds])
        lines.append(f"| {mode} | {middle:.0f} | {np.median(ratios):.2f} | {min(ratios):.2f} … {max(ratios):.2f} |")
    return "\n".join(lines)


def memory() -> str:
    """One table of peaks, each from a process of its own."""
    lines = ["Peak memory above the loaded model, MB:", "", "| call with | " + " | ".join(
        f"{case.model}, {case.images} image{'s' if case.images > 1 else ''}" for case in MEMORY) + " |",
        "|---|" + "---|" * len(MEMORY)]  # fmt: skip
    for mode in MODES:
        cells = []
        for i, case in enumerate(MEMORY):
            command = [sys.executable, __file__, "--peak", str(i), json.dumps(mode)]
            done = subprocess.run(command, capture_output=True, text=True, check=True) if mode in case.modes else None
            cells.append(f"{float(done.stdout.split()[-1]):.0f}" if done else "–")
        lines.append(f"| {mode} | {' | '.join(cells)} |")
    return "\n".join(lines)


def peak(case: Case, mode: str) -> float:
    """MB by which the most that was held during a call lies above what was held before it."""
    pipe = load(case.model)
    spec = by_hand(pipe)
    if torch.cuda.is_available():
        seconds(pipe, case, mode, spec)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds(pipe, case, mode, spec)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    most, done = [resident()], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            most.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        seconds(pipe, case, mode, spec)
    finally:
        done.set()
        watcher.join()
    return (max(most) - most[0]) / 1e6


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
