"""A spec of STAS for a pipeline, and the method written out once more, one entry at a time."""

from typing import Any

import numpy as np
import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook

from tests.steering.helpers import fields
from tests.tiny_wan import SIZE, encode_wan
from workbench.models import fingerprint
from workbench.steering.spec import StasSpec

PROMPTS = ["red apple", "dog face"]
STEPS = 3


def stas_fields(**changes: Any) -> dict[str, Any]:
    base = fields()
    kept = {key: base[key] for key in ("model", "channels", "window", "evidence", "created_by")}
    size = {"height": 32, "width": 48, "num_frames": 5}
    return {
        **kept,
        "layers": ["blocks.1"],
        "action": "steer",
        "alpha_first": 1.5,
        "alpha_boundary": 0.75,
        "boundary_width": {"unit": "tokens", "value": 2},
        "reference": "channel",
        "branches": ["cond", "uncond"],
        "recommended": {"guidance_scale": 4.0, "steps": 3, **size, "source": {"alpha_first": "a choice"}},
        **changes,
    }


def stas_spec(pipe: Any, **changes: Any) -> StasSpec:
    chosen = {"channels": [3, 11]} | changes
    return StasSpec.create(**stas_fields(model={"family": "wan", **fingerprint(pipe)}, **chosen))


def generate(pipe: Any, prompts: list[str] = PROMPTS, *, scale: float = 4.0, size: Any = SIZE, **kwargs: Any) -> Any:
    """Latents; the noise of a sample depends on its place alone."""
    grid = (1 + (size["num_frames"] - 1) // 4, size["height"] // 8, size["width"] // 8)
    noise = [torch.randn(16, *grid, generator=torch.Generator().manual_seed(i + 7)) for i in range(len(prompts))]
    given = {"num_inference_steps": STEPS, "latents": torch.stack(noise), **encode_wan(prompts), **size, **kwargs}
    return pipe(**given, guidance_scale=scale, output_type="latent").frames


def by_the_letter(spec: StasSpec, h_NC: np.ndarray, grid: tuple[int, int, int], width: int) -> np.ndarray:
    """h <- alpha max|h| sign(h), in float32, with loops; shares no code with the package."""
    frames, rows, columns = grid
    out, run = h_NC.copy(), rows * columns
    for n in range(frames * run):
        frame, place = divmod(n, run)
        role = "first" if frame == 0 else "boundary" if place < width or place + width >= run else "interior"
        alpha = {"first": spec.alpha_first, "boundary": spec.alpha_boundary, "interior": spec.alpha_interior}[role]
        if alpha is None:
            continue
        for c in spec.channels:
            seen = [c] if spec.reference == "channel" else list(spec.channels)
            largest = max(abs(float(h_NC[i, k])) for i in range(len(h_NC)) for k in seen)
            sign = np.sign(h_NC[n, c])
            steer = np.float32(alpha) * np.float32(largest) * sign
            out[n, c] = {"steer": steer, "scale": np.float32(alpha) * h_NC[n, c], "zero": 0.0}[spec.action]
    return out


class Inner(ModelHook):
    """On a block before a spec is applied, so that it sees what the block itself returned."""

    def __init__(self, seen: list[torch.Tensor]) -> None:
        super().__init__()
        self.seen = seen

    def post_forward(self, module: Any, output: Any) -> Any:
        self.seen.append(output.clone())
        return output


class Seen:
    """Of every block and visit: what it returned (`own`), and what the model was given (`left`)."""

    def __init__(self, pipe: Any) -> None:
        blocks = pipe.transformer.blocks
        self.own: list[list[torch.Tensor]] = [[] for _ in blocks]
        self.left: list[list[torch.Tensor]] = [[] for _ in blocks]
        for i, block in enumerate(blocks):
            HookRegistry.check_if_exists_or_initialize(block).register_hook(Inner(self.own[i]), "inner")
            block.register_forward_hook(lambda m, a, out, i=i: self.left[i].append(out.clone()))
