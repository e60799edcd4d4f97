"""What does STAS cost? Time of a denoising step with a spec attached, against the plain pipeline.

    OMP_NUM_THREADS=1 python benchmarks/stas_cost.py            about 6 min on one core
    OMP_NUM_THREADS=1 python benchmarks/stas_cost.py --write    and puts the tables into docs/benchmarks.md

Conditions take turns, in one order and then the other, so that a machine that slows down slows all of them; a ratio is the
median over rounds of the ratio within a round. Plain runs twice in every round: how far its two runs are apart is how much of
a ratio is chance. Because that is more than what STAS takes, its hooks are also timed alone, on a state of the same shape.
With one thread on a CPU it is CPU time, so that other processes count little; else it is wall time. Random weights: the
values do not matter to the time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from workbench.models import fingerprint
from workbench.steering.attach import apply
from workbench.steering.spec import StasSpec
from workbench.steering.stas_hooks import LeavingHook, Plan, StasAttachment

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.tiny_wan import TEXT, tiny_wan

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- stas cost: begin -->", "<!-- stas cost: end -->"
CHANNELS = (3, 17, 60, 200)
TEXT_TOKENS = 64
#: Condition → share of the blocks that are changed; None for no spec.
CONDITIONS: dict[str, float | None] = {
    "plain": None,
    "plain again": None,
    "spec attached, nothing to do": 0.0,
    "STAS at the middle block": 0.5,
    "STAS at every block": 1.0,
}


class Case(NamedTuple):
    """One table: a model, the video's size, steps a call, rounds."""

    name: str
    heads: int
    head_width: int
    feed_forward: int
    blocks: int
    latents: tuple[int, int, int]
    steps: int
    rounds: int
    guidance: float
    """1: without CFG, one call a step. A step with CFG is two such calls, steered alike, so the ratio is the same."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Token grid."""
        frames, rows, columns = self.latents
        return frames, rows // 2, columns // 2


CASES = (
    Case("a model of realistic width", 9, 128, 4608, 12, (5, 32, 32), 1, 5, 1.0),
    Case("the shape of mini-video", 4, 64, 1024, 8, (5, 16, 16), 8, 9, 4.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    options = parser.parse_args()
    threads, kind = torch.get_num_threads(), "CPU" if clock() is time.process_time else "wall"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    head = f"{device}, {threads} torch thread{'s' if threads > 1 else ''}, {kind} time; {len(CHANNELS)} channels, a boundary of one row of tokens."
    text = "\n\n".join([f"Measured on {head}", *map(timing, CASES)])
    print(text)
    if options.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


def clock() -> Callable[[], float]:
    """CPU time where that is the time of the work, else wall time."""
    alone = not torch.cuda.is_available() and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def load(case: Case) -> Any:
    """The random pipeline, where there is a GPU on that."""
    pipe = tiny_wan(
        vae=False, num_attention_heads=case.heads, attention_head_dim=case.head_width, ffn_dim=case.feed_forward,
        num_layers=case.blocks, freq_dim=256,
    )  # fmt: skip
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def by_hand(pipe: Any, share: float) -> StasSpec:
    """A spec that changes the middle block (0.5), all blocks (1), or nothing (0)."""
    paths = [f"blocks.{i}" for i in range(pipe.transformer.config.num_layers)]
    alpha = None if share == 0 else 1.0
    return StasSpec.create(
        model={"family": "wan", **fingerprint(pipe)}, channels=CHANNELS, action="steer", reference="channel",
        layers=paths if share == 1 else [paths[len(paths) // 2]], alpha_first=alpha, alpha_boundary=alpha,
        boundary_width={"unit": "rows", "value": 1}, branches=["cond", "uncond"],
        window={"unit": "step_fraction", "low": 0.0, "high": 1.0},
        recommended={"guidance_scale": None, "steps": None, "height": None, "width": None, "num_frames": None, "source": {}},
        evidence={"criterion": None, "parameters": {}, "store": {}, "n_samples": None, "channels": [],
                  "rule": "by hand, to measure time", "provenance": {}, "notes": {}},
        created_by={},
    )  # fmt: skip


def seconds(pipe: Any, case: Case, spec: StasSpec | None) -> float:
    """Time of a step of one call of the pipeline."""
    frames, rows, columns = case.latents
    generator, device = torch.Generator().manual_seed(0), pipe.transformer.device
    text = torch.randn(2, TEXT_TOKENS, TEXT, generator=generator).to(device)
    arguments = {
        "prompt_embeds": text[:1], "negative_prompt_embeds": text[1:], "num_inference_steps": case.steps,
        "guidance_scale": case.guidance, "height": rows * 8, "width": columns * 8, "num_frames": 1 + 4 * (frames - 1),
        "latents": torch.randn(1, 16, frames, rows, columns, generator=generator).to(device), "output_type": "latent",
    }  # fmt: skip
    now = clock()

    def run() -> float:
        start = now()
        pipe(**arguments)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return (now() - start) / case.steps

    if spec is None:
        return run()
    with apply(spec, pipe) as attached:
        taken = run()
    assert attached.steered_calls == (0 if spec.idle else attached.calls)
    return taken


def alone(pipe: Any, case: Case, repeats: int = 40) -> float:
    """Median time that the hook of one block takes for one state."""
    spec = by_hand(pipe, 0.5)
    hook = LeavingHook(StasAttachment(spec), spec)
    hook.plan = Plan(spec, case.grid)
    state = torch.randn(1, int(np.prod(case.grid)), case.heads * case.head_width, device=pipe.transformer.device)
    now, taken = clock(), []
    for _ in range(repeats):
        start = now()
        hook.post_forward(pipe.transformer, state)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(now() - start)
    return float(np.median(taken[5:]))


@torch.no_grad()
def timing(case: Case) -> str:
    """One table of times."""
    pipe = load(case)
    specs = {name: None if share is None else by_hand(pipe, share) for name, share in CONDITIONS.items()}
    seconds(pipe, case, None)
    rounds: list[dict[str, float]] = []
    for i in range(case.rounds):
        order = list(CONDITIONS) if i % 2 == 0 else list(CONDITIONS)[::-1]
        rounds.append({name: seconds(pipe, case, specs[name]) for name in order})
    config, calls = pipe.transformer.config, 1 if case.guidance <= 1 else 2
    step, hook = float(np.median([times["plain"] for times in rounds])), alone(pipe, case)
    lines = [
        f"{case.name}: {config.num_layers} blocks, {case.heads * case.head_width} channels, {np.prod(case.grid)} tokens "
        f"(grid {case.grid[0]} × {case.grid[1]} × {case.grid[2]}), {calls} call{'s' if calls > 1 else ''} a step, medians of "
        f"{case.rounds} rounds of {case.steps} step{'s' if case.steps > 1 else ''}:",
        "",
        "| step | ms | × plain | lowest … highest |",
        "|---|---|---|---|",
    ]
    for name in CONDITIONS:
        ratios = [times[name] / times["plain"] for times in rounds]
        middle = 1000 * np.median([times[name] for times in rounds])
        lines.append(f"| {name} | {middle:.1f} | {np.median(ratios):.4f} | {min(ratios):.4f} … {max(ratios):.4f} |")
    share = hook * calls / step
    lines += [
        "",
        f"The hook alone takes {1000 * hook:.2f} ms a block and call: {100 * share:.3f} % of a step at one block, "
        f"{100 * share * case.blocks:.2f} % at all {case.blocks}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
