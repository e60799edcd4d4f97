"""Writing the model card from the measured numbers."""

from __future__ import annotations

from pathlib import Path

from .card_parts import (
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
from .vae import KL_WEIGHT


def _history(history: list[dict]) -> str:
    """What a run was set to, from which step on."""
    lines = []
    for i, row in enumerate(history):
        end = f"{history[i + 1]['from_step']:,}" if i + 1 < len(history) else "the end"
        c = row["config"]
        text = f"  * steps {row['from_step']:,} to {end}: batch {c['batch']}, {100 * c['shift_share']:.0f} % of the samples "
        lines.append(text + f"shifted by 2 px, logit-normal mean {c['sigma_mean']:g} (0 while the rate decays)")
    same = [line for i, line in enumerate(lines) if i == 0 or line.split(":", 1)[1] != lines[i - 1].split(":", 1)[1]]
    return "\n".join(same)


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
    p, ma, recall = n["parameters"], numbers["massive_activations"], numbers["recall"]
    c, bar = t["config"], ma["bar"]
    led = "; ".join(
        f"sigma {s}: {100 * min(v):.0f} to {100 * max(v):.0f} % over blocks (median {100 * sorted(v)[len(v) // 2]:.0f} %)"
        for s, v in ma["tokens_led_by_top_channel"].items()
    )
    absolute = "; ".join(
        f"t {k}: {top:.2f} ({median:.2f})"
        for k, (top, median) in ma["timestep_input_only_middle_block_top_and_median"].items()
    )
    twins = largest_ratios(ma)
    return f"""{front("text-to-image", "stable-diffusion-3")}
# mini-image

A small, really trained text-to-image diffusion transformer of the Stable Diffusion 3 architecture, made to be the
always-available test animal of the workbench: it loads offline ({n["speed"]["load_seconds"]:.1f} s), draws a 64 px picture in
{n["speed"]["picture_seconds"]:.1f} s ({n["speed"]["threads"]} CPU thread(s), {n["sampling"]["steps"]} steps with guidance), and has massive activations. It draws emoji. It is
not a general image model.

```python
from diffusers import StableDiffusion3Pipeline
from workbench.models.mini import embedded_path

pipe = StableDiffusion3Pipeline.from_pretrained(embedded_path("mini-image"), local_files_only=True)
pipe("red apple", num_inference_steps={n["sampling"]["steps"]}, guidance_scale={n["sampling"]["guidance"]}, max_sequence_length=8).images[0]
```

## Grid

Sixteen prompts, chosen before training and never exchanged. Left of each pair: the training picture; right: drawn
from noise by the prompt (guidance {n["sampling"]["guidance"]}, {n["sampling"]["steps"]} steps, first seed, nothing picked).

![training pictures and samples](grid.webp)

{judgement(judged, n["sampling"]["prompts"])}

Measured: the training picture of the prompt is the nearest of all {d["pictures"]} by pixel distance for
**{recall["prompts"]["top1"]} of {recall["prompts"]["n"]}** (among the nearest five: {recall["prompts"]["top5"]}); for {recall["sample"]["n"]} captions drawn at random (`sample.webp`):
{recall["sample"]["top1"]} nearest, {recall["sample"]["top5"]} among five. Without guidance: {recall["unguided"]["top1"]} of {recall["unguided"]["n"]}.
With the pipeline's own defaults (28 steps, guidance 7, 256 T5 tokens; `stock.webp`): {recall["stock"]["top1"]} of {recall["stock"]["n"]}.

![random captions](sample.webp)

## Massive activations

Ratio = {ma["definition"]}; float32.

{ma_table(ma["trained"])}

* {bar_words(bar)}
* The same transformer untrained, with the trained text encoders: at most {max(twins.values()):.1f} ({"; ".join(f"{k.replace('_', ' ')} {v:.1f}" for k, v in twins.items())}).
* Channels most often among the top three of a block and noise level: {top_channels(ma)}.
* Image tokens whose largest channel is the top channel of the block: {led}.
* Same latents (sigma 0.5), only the timestep input changed: largest ratio over blocks {by_timestep(ma)}; mean |h| of the top
  (and of the median) channel after block {bar["blocks"] // 2}: {absolute}.

![ratio by block](ma-blocks.png)
![ratio during training](ma-growth.png)

These are fixed channels, large on most image tokens, not on a few special ones. They are far below the factors of hundreds
and more that large language models show; use relative criteria, not fixed thresholds. One seed: in earlier runs of
this architecture the effect came back, the channel index did not.

## Architecture

| part | class | parameters |
|---|---|---|
| transformer | `SD3Transformer2DModel`, {c["layers"]} blocks, {c["heads"]} heads of 64, patch 2, no QK norm: 64 image tokens | {p["transformer"]:,} |
| vae | `AutoencoderKL`, 64 px to 8 x 16 x 16; {n["vae"]["psnr_db"]} dB on the training pictures | {p["vae"]:,} |
| text_encoder, text_encoder_2 | `CLIPTextModelWithProjection`, two layers, width 128 each, trained with the transformer | {p["text_encoder"] + p["text_encoder_2"]:,} |
| text_encoder_3 | `T5EncoderModel` whose last norm is zero: **a constant stand-in** | {p["text_encoder_3"]:,} |

Stock SD3 wants a T5 in slot 3. This one outputs exact zeros, so its tokens carry no prompt; all information goes
through the two CLIPs (ten tokens: begin, at most eight words, end). Training saw 1 to 16 T5 tokens in 70 % of the
samples and the pipeline's default of 256 in the others. The tokenizer knows whole words only ({d["words"]} of them); others
become `<unk>`. Scheduler: `FlowMatchEulerDiscreteScheduler`, shift 1. Stored as float16 (transformer, vae) and
float32 (text encoders); loads as float32.

## Data and licence

{d["pictures"]} still pictures of `{d["pictures_package"]}` (npm; art: Microsoft Fluent emoji, MIT, notice in
`LICENSE-fluentui-emoji`) on white, {d["size"]} px. Left out: national flags, laptop and technologists, video games and
paperclips (Microsoft's README excludes flags, technologist, video games and the Clippy-like paperclip), skin tones, and
the man/woman copies of persons. Captions: CLDR short names in lower case from `{d["names_package"]}` (MIT).
The weights are under the MIT licence.

## Training and compute

* Autoencoder: {t["vae_steps"]:,} steps, {t["vae_seconds"] / 60:.0f} minutes (L1 with gradients and scales, KL {KL_WEIGHT:g} per latent element){decoder_words(t)}.
* Transformer and text encoders: {t["step"]:,} steps = {t["images"]:,} samples = {t["epochs"]:g} epochs in {t["seconds"] / 60:.0f} minutes on
  **one CPU core** ({t["machine"]}, a shared machine), bfloat16 autocast; no GPU.
* AdamW {c["lr"]:g}, betas {tuple(c["betas"])}, no weight decay, warm-up {c["warmup"]} steps, linear decay to zero over the last
  {100 * c["decay_share"]:.0f} %, EMA {c["ema"]} (shipped), {100 * c["drop"]:.0f} % empty prompts, logit-normal noise levels, seed {c["seed"]}.
* Settings were changed on the way, to get recognisable pictures in the time there was:
{_history(t["history"])}
* Loss at the end: {t["final_loss"]:.4f}. Versions: {versions(n)}.

![loss](loss.png)

Repeat it: `python -m workbench.models.mini fetch`, then `train-vae --steps N`, `train`, `export`, `card`. A killed
`train` continues from its checkpoint and ends at the same weights on the same machine and software. The defaults are
the settings of the last leg; `training.json` has what each leg was set to.

## Limits

* It has learnt its training set by heart; that is the aim here. New combinations mostly fail. Unseen prompts
  ({", ".join(n["sampling"]["unseen"])}):

![unseen prompts](unseen.webp)

* Another seed gives nearly the same picture ({n["psnr_between_seeds_db"]} dB between two seeds, mean over the grid's prompts): each
  caption has one training picture, and that is what comes out. Do not count seeds of one prompt as independent
  samples of pictures; vary the prompt.
* 64 x 64 px only; white background; one style; persons are the default yellow.
* Words outside its vocabulary are all the same to it.
* Results on it say that a method runs and how it reads, not that it holds for large models.
"""


def finish(folder: Path, numbers: dict, shots: dict | None, judged: dict | None = None) -> None:
    """Put figures, ``metrics.json`` and ``README.md`` into the exported ``folder``; without ``shots`` figures stay."""
    from .figures import draw_figures

    if shots is not None:
        draw_figures(numbers, shots, folder)
    save_card(folder, numbers, write_card(numbers, judged))
