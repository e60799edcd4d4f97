"""Writing the model card from the measured numbers."""

from __future__ import annotations

from pathlib import Path

from workbench.roles import ROLES

from ..card_parts import (
    bar_words,
    by_timestep,
    decoder_words,
    front,
    judgement,
    largest_ratios,
    ma_table,
    save_card,
    top_channels,
    versions,
)
from .dit import SHIFT
from .vae import KL_WEIGHT


def _roles_table(table: dict[str, list[dict[str, float]]]) -> str:
    """Rows of the top channel's mean |h| by noise level, block and role."""
    blocks = len(next(iter(table.values())))
    lines = ["| sigma | role | " + " | ".join(f"block {i}" for i in range(blocks)) + " |", "|---" * (blocks + 2) + "|"]
    for sigma, rows in table.items():
        lines += [f"| {sigma} | {role} | " + " | ".join(f"{row[role]:.2f}" for row in rows) + " |" for role in ROLES]
    return "\n".join(lines)


def _history(history: list[dict]) -> str:
    """What a run was set to, from which step on, where that changed."""
    lines: list[str] = []
    row_limit = max(row["config"]["steps"] for row in history)  # what was to begin later never did
    for row in history:
        c = row["config"]
        text = (
            f"batches of {c['still_batch']} single frames up to step {c['still_steps']:,}, then of {c['batch']} clips; "
            f"logit-normal mean {c['sigma_mean']:g} ({c.get('decaying_sigma_mean', 0.0):g} while the rate decays), rate {c['lr']:g}, decaying up to step {c['steps']:,}"
        )
        if c.get("focus_from", row_limit) < row_limit:
            text += (
                f"; from step {c['focus_from']:,} on of {c['focus']} captions only, those of card and study among them"
            )
        if not lines or lines[-1].split(":", 1)[1].strip() != text:
            lines.append(f"  * from step {row['from_step']:,}: {text}")
    return "\n".join(lines)


def write_card(numbers: dict, judged: dict | None = None) -> str:
    """Text of the model card.

    Parameters
    ----------
    numbers
        What ``evaluate.evaluate`` measured (``metrics.json``).
    judged
        Verdicts by prompt under ``"prompts"``, who judged under ``"by"``, optionally a ``"remark"``.
    """
    n, t, d = numbers, numbers["training"], numbers["data"]
    p, ma, recall, c = n["parameters"], numbers["massive_activations"], numbers["recall"], numbers["training"]["config"]
    bar, sampling = ma["bar"], n["sampling"]
    moved = n["motion"]
    own = sum(moved["prompts"]) / len(moved["prompts"])
    real = sum(moved["originals"]) / len(moved["originals"])
    untrained = max(largest_ratios(ma).values())
    return f"""{front("text-to-video", "wan")}
# mini-video

A small, really trained text-to-video diffusion transformer of the Wan 2.1 architecture, made to be the always-available
test animal of the workbench for the frame hierarchy and STAS: it loads offline ({n["speed"]["load_seconds"]:.1f} s) and makes a clip of
{d["frames"]} frames of {d["size"]} px in {n["speed"]["clip_seconds"]:.1f} s ({n["speed"]["threads"]} CPU thread(s), {sampling["steps"]} steps with guidance). It animates emoji. It is
not a general video model.

```python
from diffusers import WanPipeline
from workbench.models.mini import embedded_path

pipe = WanPipeline.from_pretrained(embedded_path("mini-video"), local_files_only=True)
pipe("dog face", height={d["size"]}, width={d["size"]}, num_frames={d["frames"]}, num_inference_steps={sampling["steps"]}, guidance_scale={sampling["guidance"]}).frames[0]
```

## Clips

{len(sampling["prompts"])} prompts, chosen before training and never exchanged. Upper row of each pair: the training clip on one of the
random backgrounds; lower: made from noise by the prompt (guidance {sampling["guidance"]}, {sampling["steps"]} steps, first seed, nothing picked). The
model chooses the background, and where the emoji lies on it.

![training clips and samples, every second frame](grid.webp)

The same, moving (left of each pair: the training clip):

![training clips and samples, animated](clips.webp)

{judgement(judged, sampling["prompts"])}

Measured: laid on the generated background at the best place, the training clip of the prompt is the nearest of all {d["clips"]} by
pixel distance for **{recall["prompts"]["top1"]} of {recall["prompts"]["n"]}** (among the nearest five: {recall["prompts"]["top5"]}); with another seed {recall["other_seed"]["top1"]}; without guidance
{recall["unguided"]["top1"]}; for {recall["sample"]["n"]} captions drawn at random (`sample.webp`) {recall["sample"]["top1"]} nearest, {recall["sample"]["top5"]} among five. Mean difference of neighbouring frames
on [0, 1]: {own:.4f}; of the training clips {real:.4f}.

![random captions, animated](sample.webp)

## Massive activations

Ratio = {ma["definition"]}; float32.

{ma_table(ma["trained"])}

* {bar_words(bar)}
* The same transformer untrained, with the trained text encoder: at most {untrained:.1f}.
* Channels most often among the top three of a block and noise level: {top_channels(ma)}.
* Same latents (sigma 0.5), only the timestep input changed: largest ratio over blocks {by_timestep(ma)}.

Mean |h| of each block's top channel by role (boundary: the first and last row of tokens of later latent frames), no
test, no interval; `workbench hierarchy` makes those:

{_roles_table(ma["top_channel_by_role"])}

![ratio by block](ma-blocks.png)
![ratio during training](ma-growth.png)

Use relative criteria, not fixed thresholds. One seed.

## Architecture

| part | class | parameters |
|---|---|---|
| transformer | `WanTransformer3DModel`, {c["layers"]} blocks, {c["heads"]} heads of 64, feed-forward {c["ffn"]}, patch 1 x 2 x 2: 5 frames of 8 x 8 tokens | {p["transformer"]:,} |
| vae | `AutoencoderKLWan`, causal: the first frame alone, then chunks of four; 64 px to 16 x 5 x 16 x 16; on training clips {n["vae"]["psnr_db"][0]} dB for the first frame, {", ".join(f"{v}" for v in n["vae"]["psnr_db"][1:])} dB for the chunks | {p["vae"]:,} |
| text_encoder | `UMT5EncoderModel`, one layer, trained with the transformer | {p["text_encoder"]:,} |

The tokenizer knows whole words only ({d["words"]} of them); others become `<unk>`. Scheduler: `FlowMatchEulerDiscreteScheduler`,
shift {SHIFT:g}. Stored as float16 (transformer, vae) and float32 (text encoder); loads as float32.

## Data and licence

{d["clips"]} animations of {", ".join(f"`{name}`" for name in d["packages"])} (npm; art: Microsoft's animated Fluent emoji,
github.com/microsoft/fluentui-emoji-animated, MIT, notice in `LICENSE-fluentui-emoji-animated`), the liveliest {d["frames"]} frames at {d["fps"]} a
second. Every clip was seen on a number of random backgrounds (gradients of one colour to another) and places: on white, the
edges of the picture look like frame boundaries. Left out: joined sequences, skin tones, most people, clock faces, and what
hardly moves. Captions: CLDR short names in lower case from `{d["names_package"]}` (MIT). The weights are under the MIT licence.

## Training and compute

* Autoencoder: {t["vae_steps"]:,} steps, {t["vae_seconds"] / 60:.0f} minutes (L1 with differences in space and time, KL {KL_WEIGHT:g} per latent element){decoder_words(t)}.
* Transformer and text encoder: {t["step"]:,} steps = {t["clips"]:,} samples (single frames, then clips) in {t["seconds"] / 60:.0f} minutes on **one CPU
  core** ({t["machine"]}, a shared machine), bfloat16 autocast; no GPU.
* AdamW, betas {tuple(c["betas"])}, no weight decay, warm-up {c["warmup"]} steps, linear decay over the last {100 * c["decay_share"]:.0f} %, EMA {c["ema"]} (shipped),
  {100 * c["drop"]:.0f} % empty prompts, seed {c["seed"]}:
{_history(t["history"])}
* Loss at the end: {t["final_loss"]:.4f}. Versions: {versions(n)}.

![loss](loss.png)

Repeat it: `python -m workbench.models.mini.video fetch`, then `train-vae --steps N`, `encode`, `train`, `export`, `card`. A killed
`train` continues from its checkpoint and ends at the same weights on the same machine and software.

## Limits

* It has learnt its training set by heart, {c["focus"]} captions of it at least; that is the aim here. New combinations mostly fail
  ({", ".join(sampling["unseen"])}):

![unseen prompts](unseen.webp)

* Each caption has one training clip. Do not count seeds of one prompt as independent samples; vary the prompt.
* 64 x 64 px, {d["frames"]} frames, one style. Words outside its vocabulary are all the same to it.
* Results on it say that a method runs and how it reads, not that it holds for large models.
"""


def finish(folder: Path, numbers: dict, shots: dict | None, judged: dict | None = None) -> None:
    """Put figures, ``metrics.json`` and ``README.md`` into the exported ``folder``; without ``shots`` figures stay."""
    from .figures import draw_figures

    if shots is not None:
        draw_figures(numbers, shots, folder)
    save_card(folder, numbers, write_card(numbers, judged))
