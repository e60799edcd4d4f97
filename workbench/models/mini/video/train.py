"""Training of ``mini-video``: first single frames, then clips.

The first latent frame of a clip is the latent of its first pixel frame alone, so a transformer can learn what subjects
look like from single frames, at a fifth of the price, before it learns how they move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from .. import JUDGES
from ..loop import Loop, LoopConfig, rows_of_step
from ..massive import hooked, report_of
from . import data
from .dit import LENGTHS, MiniVideo, flow_loss, make_pipeline, make_tokenizer, prepare_for_training, token_ids
from .vae import encode

PROMPTS = [p for p in (Path(__file__).parent / "prompts.txt").read_text(encoding="utf-8").splitlines() if p]
STUDY_PROMPTS = [
    line
    for line in (JUDGES["mini-video"] / "study-prompts.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
STILLS, CLIPS = 24, 8
"""How many backgrounds and places every subject is seen on, as a single frame and as a clip."""


@dataclass
class Config(LoopConfig):
    """What a run does; stored with the checkpoint.

    Until ``still_steps`` the batches are ``still_batch`` single frames, then ``batch`` clips; from ``focus_from`` on, those
    of ``focus`` captions only (`focused`).
    """

    steps: int = 4_200
    batch: int = 16
    still_steps: int = 1_200
    still_batch: int = 64
    focus_from: int = 1 << 62
    focus: int = 96
    ffn: int = 768


def focused(captions: list[str], count: int, seed: int) -> torch.Tensor:
    """Rows of the captions that the last part of a run is about, sorted: the prompts of the card and of the study, and others.

    A model of this size does not learn 327 subjects in the hours that it is given; what it is shown and studied with it must.
    """
    named = [caption for caption in captions if caption in {*PROMPTS, *STUDY_PROMPTS}]
    others = [caption for caption in captions if caption not in named]
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
    chosen = {*named, *(others[i] for i in order[: max(0, count - len(named))])}
    return torch.tensor([row for row, caption in enumerate(captions) if caption in chosen])


def latents(work: Path, vae: AutoencoderKLWan, frames: int, variants: int, progress: bool = False) -> torch.Tensor:
    """Latents of the first ``frames`` of every clip on ``variants`` backgrounds, encoded once and cached.

    Returns
    -------
    Half-precision tensor (variants, N, 16, 1 + (frames - 1) / 4, 16, 16).
    """
    store = work / f"latents-{frames}.pt"
    if not store.exists():
        clips, device = data.build(work), next(vae.parameters()).device
        rows = []
        with torch.autocast(device.type, enabled=False):  # also when a training step asks for them
            for variant in range(variants):
                for index in range(len(clips.captions)):
                    rgb = data.on_background(clips.rgba[index], np.random.default_rng([variant, index]), frames)
                    rows.append(encode(vae, torch.from_numpy(rgb)[None].to(device)).half().cpu())
                if progress:
                    print(f"{frames} frames: background {variant + 1} of {variants}", flush=True)
            made = torch.cat(rows).unflatten(0, (variants, -1))
        part = store.with_suffix(".part")
        torch.save(made, part)
        part.replace(store)
    return torch.load(store)


class Trainer(Loop[Config]):
    """A run in ``work``, where the latents of single frames (and, from ``still_steps`` on, of clips) lie."""

    SAMPLES = "clips"
    model: MiniVideo
    ema: MiniVideo

    def __init__(self, config: Config, work: Path, vae: AutoencoderKLWan, device: str = "cpu"):
        captions = data.build(work).captions
        self.vae = vae
        self.stills = latents(work, vae, 1, STILLS)
        self.moving: torch.Tensor | None = None
        self.tokenizer = make_tokenizer(captions)
        self.ids = token_ids(self.tokenizer, captions)
        self.among = focused(captions, config.focus, config.seed)
        self.no_ids = token_ids(self.tokenizer, [""])
        torch.manual_seed(config.seed)
        model = MiniVideo(self.tokenizer, config.layers, config.heads, config.ffn)
        super().__init__(config, work, model, model.transformer.blocks, device)

    def prepare(self) -> None:
        """Exchange slow kernels of the transformer."""
        self.attention = prepare_for_training(self.model.transformer)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Latents (V, N, 16, F, 16, 16) of this step's kind, the rows of its batch, and the step within its kind."""
        c = self.config
        if self.step < c.still_steps:
            return self.stills, rows_of_step(c.seed, c.still_batch, self.step, self.stills.shape[1]), c.still_batch
        if self.moving is None:
            self.moving = latents(self.work, self.vae, data.FRAMES, CLIPS)
        if self.step >= c.focus_from:
            rows = self.among[rows_of_step(c.seed + 1, c.batch, self.step - c.focus_from, len(self.among))]
        else:
            rows = rows_of_step(c.seed, c.batch, self.step - c.still_steps, self.moving.shape[1])
        return self.moving, rows, c.batch

    def loss(self) -> tuple[torch.Tensor, int]:
        """Loss of the batch of this step."""
        c = self.config
        g = torch.Generator().manual_seed(c.seed * 1_000_003 + self.step)
        table, rows, size = self.batch()
        clean = table[torch.randint(0, len(table), (size,), generator=g), rows].float().to(self.device)
        ids = torch.where(torch.rand(size, 1, generator=g) < c.drop, self.no_ids, self.ids[rows]).to(self.device)
        lengths = torch.tensor(LENGTHS)[torch.randint(0, len(LENGTHS), (size,), generator=g)]
        # Stratified logit-normal noise levels: one draw in each of `size` equal slices of probability.
        u = (torch.arange(size) + torch.rand(size, generator=g)) / size
        mean = c.decaying_sigma_mean if c.decaying(self.step) else c.sigma_mean
        sigma = torch.sigmoid(mean + math.sqrt(2) * torch.erfinv((2 * u - 1).clamp(-0.9999, 0.9999)))
        noise = torch.randn(clean.shape, generator=g).to(self.device)
        parts = (x.to(self.device) for x in (clean, ids, lengths, sigma, noise))
        return flow_loss(self.model, self.attention, *parts), size

    def report(self) -> dict:
        """MA figures of the averaged weights on 16 fixed samples."""
        table = self.stills if self.moving is None else self.moving
        rows = torch.linspace(0, len(self.ids) - 1, 16).long()
        return ma_report(self.ema, table[0, rows].float().to(self.device), self.ids[rows].to(self.device))

    def draw_grid(self, vae: AutoencoderKLWan) -> Path:
        """Frame strips of the fixed prompts, drawn with the averaged weights by the ordinary pipeline."""
        from PIL import Image

        from .grid import draw_prompts, strips

        moving = self.step > self.config.still_steps
        videos = draw_prompts(
            make_pipeline(self.ema, self.tokenizer, vae), PROMPTS, num_frames=data.FRAMES if moving else 1
        )
        path = self.work / f"grid-{self.step:06d}.png"
        Image.fromarray(strips(videos, every=2)).save(path)
        return path


@torch.no_grad()
def magnitudes(
    model: MiniVideo, clean: torch.Tensor, ids: torch.Tensor, sigma: float, timestep: float | None = None
) -> list[torch.Tensor]:
    """|h| after every block, each (B, tokens, channels), of latents (B, 16, F, 16, 16) noised to ``sigma`` with seed 0.

    ``timestep`` goes into the embedding; None stands for the ``1000 sigma`` that belongs to the noise.
    """
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(clean)
    mask = (ids != model.text_encoder.config.pad_token_id).long()
    text = model.text_encoder(ids, mask).last_hidden_state * mask[..., None]
    return hooked(
        model.transformer.blocks,
        lambda output: output,
        lambda: model.transformer(
            hidden_states=(1 - sigma) * clean + sigma * noise,
            encoder_hidden_states=text,
            timestep=torch.full((len(clean),), 1000.0 * sigma if timestep is None else timestep, device=clean.device),
        ),
    )


def ma_report(model: MiniVideo, clean: torch.Tensor, ids: torch.Tensor) -> dict[str, dict[str, list]]:
    """Ratio and index of the top channel per block, by noise level."""
    return report_of(lambda sigma: torch.stack([h.mean((0, 1)) for h in magnitudes(model, clean, ids, sigma)]))
