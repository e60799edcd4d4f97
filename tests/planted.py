"""Tiny Stable Diffusion 3 pipelines whose massive activations are known because they were planted.

Real diffusers classes, run by the real pipeline; only the weights are made. Six kinds:

``random``
    randomly initialised, nothing planted: what every analysis must stay silent about;
``constant``
    a block's feed-forward writes a constant into two channels, its gate there is 1 whatever the timestep;
``gate``
    the same, but the gate of these channels is a function of the timestep embedding that grows with the
    noise;
``gate_falling``
    the same, with a gate that grows as the noise falls (the papers disagree on the direction, so both are
    planted);
``noise_only``
    the patch embedding writes into these channels what it sees of the latent, whose mean the model's velocity moves
    steadily as the noise falls: along the trajectory the magnitude grows with the noise as it does in ``gate``, but the
    timestep embedding has no part in it;
``both``
    the latent as in ``noise_only`` and the gate as in ``gate``, half of the magnitude each.

The pipelines have no text encoders: `encode_prompt` hashes the prompt into embeddings, so that they run
from strings and from `prompt_embeds` alike.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)

from tests.reduce_reference import TERMS, text, to_dataset
from workbench.models import fingerprint

KINDS = ("random", "constant", "gate", "gate_falling", "noise_only", "both")
TEXT_WIDTH, POOLED_WIDTH, TEXT_TOKENS = 32, 32, 6


class Planted(NamedTuple):
    """What was planted: by which block, through which term, into which channels with which sign."""

    block: int
    term: str
    channels: dict[int, int]


DRIFT = 4.0
"""How far the mean of the latents moves from noise to image in the kinds that plant it; the noise's spread is 1."""

PLANT = Planted(block=1, term="gate_mlp", channels={5: +1, 41: -1})


def planted_pipeline(
    kind: str, seed: int = 0, *, width: int = 64, layers: int = 5, latent: int = 16, magnitude: float = 10.0
) -> StableDiffusion3Pipeline:
    """A pipeline of one of the `KINDS`.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    seed : int
        Seed of all weights; the planted channels do not depend on it.
    width, layers, latent : int
        Channels (a multiple of 16), blocks, and height and width of the latents; tokens are (latent / 2)
        squared.
    magnitude : float
        |h| that is planted (for the gated kinds: at the gate's maximum). An ordinary channel is at about 0.7.
    """
    torch.manual_seed(seed)
    transformer = SD3Transformer2DModel(
        sample_size=latent,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=layers,
        attention_head_dim=16,
        num_attention_heads=width // 16,
        joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=width,
        pooled_projection_dim=POOLED_WIDTH,
        pos_embed_max_size=latent,
    )
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(4,),
        latent_channels=4,
        norm_num_groups=2,
        sample_size=latent,
        layers_per_block=1,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    if kind != "random":
        _plant(transformer, kind, magnitude)
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        vae=vae.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.encode_prompt = _encode_prompt
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def _plant(transformer: SD3Transformer2DModel, kind: str, magnitude: float) -> None:
    """Make one block write ``sign × magnitude × gate(t)`` into the planted channels, and nothing else into them."""
    if kind in ("noise_only", "both"):
        _plant_latent(transformer, magnitude if kind == "noise_only" else magnitude / 2)
    if kind == "noise_only":
        return
    if kind == "both":
        kind, magnitude = "gate", magnitude / 2
    block, width = transformer.transformer_blocks[PLANT.block], transformer.inner_dim
    linear, out = block.norm1.linear, block.ff.net[2]
    # The prompt also enters temb. Keep it small, so that what is planted is a function of the timestep, as
    # it is named.
    transformer.time_text_embed.text_embedder.linear_2.weight.mul_(0.05)
    times = torch.linspace(0.0, 1000.0, 1001)  # dense: the fast sinusoids of the timestep make a coarse fit useless
    shape = {
        "constant": torch.ones_like(times),
        "gate": 0.3 + 0.7 * times / 1000,
        "gate_falling": 1.0 - 0.7 * times / 1000,
    }[kind]
    solution = _fit_gate(transformer, times, shape) if kind != "constant" else (torch.zeros(width), torch.ones(()))
    for channel, sign in PLANT.channels.items():
        row = TERMS.index(PLANT.term) * width + channel
        linear.weight[row], linear.bias[row] = solution
        out.weight[channel], out.bias[channel] = 0.0, sign * magnitude


def _plant_latent(transformer: SD3Transformer2DModel, magnitude: float) -> None:
    """Make the latents drift, and the planted channels follow them: ``sign × magnitude × (1 − 0.7 drifted)``.

    With a constant c added to the velocity, the latents of x' = v sink by c from sigma 1 to 0. The other channels'
    patch embeddings are made blind to the mean of the latents, so that they do not follow it.
    """
    transformer.proj_out.bias.fill_(DRIFT)
    patch = transformer.pos_embed.proj
    patch.weight.sub_(patch.weight.mean(dim=(1, 2, 3), keepdim=True))
    for channel, sign in PLANT.channels.items():
        patch.weight[channel] = sign * magnitude * 0.7 / DRIFT / patch.weight[channel].numel()
        patch.bias[channel] = sign * magnitude


def _fit_gate(
    transformer: SD3Transformer2DModel, times: torch.Tensor, shape: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ridge solution of ``w · silu(temb(t)) + b = shape(t)`` over timesteps and a few prompts."""
    pooled = torch.stack([_embed(f"fit {i}")[1][0] for i in range(8)])
    embeddings = torch.cat([transformer.time_text_embed(times, vector.expand(len(times), -1)) for vector in pooled])
    features = torch.nn.functional.silu(embeddings).double()
    design = torch.cat([features, torch.ones(len(features), 1, dtype=torch.double)], dim=1)
    target = shape.double().repeat(len(pooled))
    gram = design.T @ design + 1e-2 * torch.eye(design.shape[1], dtype=torch.double)
    solution = torch.linalg.solve(gram, design.T @ target).float()
    return solution[:-1], solution[-1]


def _embed(prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of a prompt that depend on its text alone: (1, tokens, width) and (1, pooled width)."""
    generator = torch.Generator().manual_seed(zlib.crc32(prompt.encode()))
    return (
        torch.randn(1, TEXT_TOKENS, TEXT_WIDTH, generator=generator),
        torch.randn(1, POOLED_WIDTH, generator=generator),
    )


def _encode_prompt(
    prompt: Any = None,
    negative_prompt: Any = None,
    prompt_embeds: Any = None,
    negative_prompt_embeds: Any = None,
    pooled_prompt_embeds: Any = None,
    negative_pooled_prompt_embeds: Any = None,
    num_images_per_prompt: int = 1,
    **_: Any,
) -> tuple[torch.Tensor, ...]:
    """Stands in for `StableDiffusion3Pipeline.encode_prompt`."""
    if prompt_embeds is None:
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        negative = negative_prompt if negative_prompt is not None else ""
        negatives = [negative] * len(prompts) if isinstance(negative, str) else list(negative)
        prompt_embeds, pooled_prompt_embeds = map(torch.cat, zip(*map(_embed, prompts), strict=True))
        negative_prompt_embeds, negative_pooled_prompt_embeds = map(
            torch.cat, zip(*map(_embed, negatives), strict=True)
        )
    embeddings = (prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds)
    return tuple(e.repeat_interleave(num_images_per_prompt, dim=0) for e in embeddings)


@torch.no_grad()
def hook_record(
    pipeline: StableDiffusion3Pipeline,
    *,
    prompts: list[str],
    seeds: list[int],
    steps: int = 4,
    ranks: int = 8,
    hidden: bool = False,
) -> xr.Dataset:
    """Record a pipeline with plain forward hooks, as `docs/schema.md` says: prompts × seeds samples, both branches.

    Nothing of `workbench.record` is used, so that the analyses' known answers do not depend on it.
    """
    transformer = pipeline.transformer
    states: list[list[torch.Tensor]] = []
    modulations: list[list[torch.Tensor]] = []
    embeddings: list[torch.Tensor] = []

    def entered(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        states.append([kwargs["hidden_states"].clone()])
        modulations.append([])

    handles = [
        transformer.transformer_blocks[0].register_forward_pre_hook(entered, with_kwargs=True),
        transformer.time_text_embed.register_forward_hook(lambda m, a, out: embeddings.append(out.clone())),
    ]
    for block in transformer.transformer_blocks:
        handles.append(block.register_forward_hook(lambda m, a, out: states[-1].append(out[1].clone())))
        handles.append(block.norm1.linear.register_forward_hook(lambda m, a, out: modulations[-1].append(out.clone())))
    samples = [(prompt, seed) for prompt in prompts for seed in seeds]
    finals = []
    try:
        for prompt, seed in samples:
            generator = torch.Generator().manual_seed(seed)
            finals.append(
                pipeline(
                    prompt,
                    num_inference_steps=steps,
                    guidance_scale=3.0,
                    generator=generator,
                    output_type="latent",
                ).images
            )
    finally:
        for handle in handles:
            handle.remove()
    assert len(states) == len(samples) * steps, "one transformer call a step, both branches in it"

    def stacked(calls: list[list[torch.Tensor]]) -> np.ndarray:
        both = torch.stack([torch.stack(layers) for layers in calls])  # (sample·step, layer, branch, …)
        both = both.reshape(len(samples), steps, *both.shape[1:])
        return np.moveaxis(both.numpy(), (0, 1, 2, 3), (0, 3, 2, 1))  # sample, branch, layer, timestep, …

    h_SBLTNC = stacked(states)
    terms = stacked(modulations)
    terms = terms.reshape(*terms.shape[:4], len(TERMS), -1)
    recording = to_dataset(
        h_SBLTNC,
        ranks=ranks,
        keep_hidden=hidden,
        prompts=[p for p, _ in samples],
        seeds=[s for _, s in samples],
        timesteps=pipeline.scheduler.timesteps.numpy(),
        sigmas=pipeline.scheduler.sigmas.numpy()[:steps],
        modulation=terms,
        latent_final=torch.cat(finals).numpy(),
        temb=stacked([[e] for e in embeddings])[:, :, 0],
    )
    return recording.assign_attrs(model=fingerprint(pipeline))


@torch.no_grad()
def hook_experiment(
    pipeline: StableDiffusion3Pipeline,
    *,
    prompts: list[str],
    seeds: list[int],
    steps: int = 12,
    grid: int = 4,
    mediate: int | None = None,
) -> xr.Dataset:
    """A timestep-swap experiment with plain forward hooks: every embedding with every latent of the grid.

    Parameters
    ----------
    mediate : int, optional
        Block in which gate, shift and scale, or all of these are exchanged as well.
    """
    transformer, calls = pipeline.transformer, []
    handle = transformer.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append({k: _copied(v) for k, v in kwargs.items()}), with_kwargs=True
    )
    samples = [(prompt, seed) for prompt in prompts for seed in seeds]
    try:
        for prompt, seed in samples:
            generator = torch.Generator().manual_seed(seed)
            pipeline(prompt, num_inference_steps=steps, guidance_scale=3.0, generator=generator, output_type="latent")
    finally:
        handle.remove()
    at = np.unique(np.linspace(0, steps - 1, grid).round().astype(int))
    kept = [[{**calls[s * steps + t], "return_dict": False} for t in at] for s in range(len(samples))]
    pairs = [(t, e) for t in range(len(at)) for e in range(len(at))]
    cells = [(t, e, "none" if t == e else "embedding", "") for t, e in pairs]
    block = f"transformer_blocks.{mediate}"
    if mediate is not None:
        cells += [(t, e, swap, block) for t, e in pairs if t != e for swap in ("gate", "shift_scale", "modulation")]
    states = []  # sample, cell → (layer, branch, token, channel)
    for own in kept:
        terms = {e: _modulation(transformer, mediate, own[e]) for e in range(len(at))} if mediate is not None else {}
        for t, e, swap, _ in cells:
            if swap in ("none", "embedding"):
                states.append(_states(transformer, {**own[t], "timestep": own[e]["timestep"]}))
            else:
                states.append(_exchanged(transformer, mediate, own[t], terms[e], swap))
    h = torch.stack(states).reshape(len(samples), len(cells), *states[0].shape).numpy()
    sigmas = pipeline.scheduler.sigmas.numpy()[:steps][at]
    times = pipeline.scheduler.timesteps.numpy()[at]
    latent, embedding = ([cell[i] for cell in cells] for i in (0, 1))
    recording = to_dataset(
        np.moveaxis(h, (0, 1, 2, 3), (0, 3, 2, 1)),
        prompts=[p for p, _ in samples],
        seeds=[s for _, s in samples],
        timesteps=times[latent].astype(np.float64),
        sigmas=sigmas[latent],
    )
    recording = recording.assign_coords(
        step=("timestep", at[latent]),
        embedding_timestep=("timestep", times[embedding].astype(np.float64)),
        embedding_sigma=("timestep", sigmas[embedding].astype(np.float64)),
        swap=("timestep", text([cell[2] for cell in cells])),
        swap_block=("timestep", text([cell[3] for cell in cells])),
        latent_prompt=recording["prompt"],
        latent_seed=recording["seed"],
    )
    return recording.assign_attrs(experiment="timestep-swap")


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _states(transformer: SD3Transformer2DModel, call: dict[str, Any]) -> torch.Tensor:
    """The state that enters the first block, and that after each."""
    found: list[torch.Tensor] = []
    handles = [
        transformer.transformer_blocks[0].register_forward_pre_hook(
            lambda module, args, kwargs: found.append(kwargs["hidden_states"].clone()), with_kwargs=True
        ),
        *(
            b.register_forward_hook(lambda m, a, out: found.append(out[1].clone()))
            for b in transformer.transformer_blocks
        ),
    ]
    try:
        transformer(**call)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(found)


def _modulation(transformer: SD3Transformer2DModel, block: int, call: dict[str, Any]) -> torch.Tensor:
    """AdaLN terms of one block in one call, (branch, term, channel)."""
    embedding = transformer.time_text_embed(call["timestep"], call["pooled_projections"])
    linear = transformer.transformer_blocks[block].norm1.linear
    return linear(torch.nn.functional.silu(embedding)).unflatten(1, (len(TERMS), -1))


def _exchanged(
    transformer: SD3Transformer2DModel, block: int, call: dict[str, Any], other: torch.Tensor, swap: str
) -> torch.Tensor:
    """States of a call in which one block gets some AdaLN terms of another."""
    parts = {"gate": ("gate",), "shift_scale": ("shift", "scale"), "modulation": ("gate", "shift", "scale")}[swap]
    rows = [i for i, term in enumerate(TERMS) if term.startswith(parts)]

    def replace(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
        terms = out.unflatten(1, (len(TERMS), -1)).clone()
        terms[:, rows] = other[:, rows]
        return terms.flatten(1)

    handle = transformer.transformer_blocks[block].norm1.linear.register_forward_hook(replace)
    try:
        return _states(transformer, call)
    finally:
        handle.remove()
