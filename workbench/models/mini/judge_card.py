"""Putting the judge's folder together, and writing its card from the measured numbers."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from . import data
from .judge import CONFIG, WEIGHTS
from .judge_measure import BINS, STUDY, caption_groups, measure, spread_prompts

PROMPTS = "study-prompts.txt"
FRONT = """---
license: mit
pipeline_tag: image-classification
tags: [emoji, from-scratch, evaluation, mini-image]
---
"""


def finish_judge(target: Path, work: Path, trained: Path | None, text_only: bool = False) -> Path:
    """Copy a trained judge into `target` (if there is one), measure it and write its card; return the card's path."""
    target.mkdir(parents=True, exist_ok=True)
    if trained is not None:
        for name in (CONFIG, WEIGHTS, "training.json"):
            shutil.copyfile(trained / name, target / name)
    if not text_only:
        write_prompts(target, work)
        (target / "LICENSE-fluentui-emoji").write_text(data.MIT_NOTICE, encoding="utf-8")
        numbers = measure(target, work)
        (target / "metrics.json").write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    numbers = json.loads((target / "metrics.json").read_text(encoding="utf-8"))
    training = json.loads((target / "training.json").read_text(encoding="utf-8"))
    (target / "README.md").write_text(write_judge_card(numbers, training), encoding="utf-8")
    return target / "README.md"


def write_prompts(target: Path, work: Path) -> None:
    """Write the study prompts: a seeded random choice, made without looking at any picture."""
    _, captions, _ = data.build(work)
    chosen = spread_prompts(captions, caption_groups(work, captions), STUDY)
    head = f"# {len(chosen)} of {len(captions)} captions, drawn at random (seed 0), each Unicode group by its share.\n"
    (target / PROMPTS).write_text(head + "\n".join(chosen) + "\n", encoding="utf-8")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def curve_rows(curves: dict) -> str:
    """One line a disturbance: strength, share recognised, among five, log-odds."""
    lines = ["| disturbance | strength | recognised, % | among five, % | log-odds: median | lowest decile |",
             "|---|---|---:|---:|---:|---:|"]  # fmt: skip
    for family, steps in curves.items():
        for strength, row in steps.items():
            lines.append(
                f"| {family} | {strength} | {_percent(row['recognised'])} | {_percent(row['among_five'])} | "
                f"{row['log_odds_median']:.1f} | {row['log_odds_low_decile']:.1f} |"
            )
    return "\n".join(lines)


def reading(n: dict) -> str:
    """What the curves say about detail and content, in a paragraph."""
    octaves, tiles, sharp = (
        n["curves"]["octaves taken away"],
        n["curves"]["tiles shuffled, px"],
        n["curves"]["unsharp mask, amount"],
    )
    real, fine, coarse = n["real"]["log_odds_median"], octaves["above 1/8"], octaves["below 1/16"]
    mild = {
        "gaussian blur, px": ("0.5", "1", "1.5", "2"),
        "shift, px": ("2", "4"),
        "white noise, sd": ("0.02", "0.05", "0.1"),
    }
    medians = [n["curves"][family][strength]["log_odds_median"] for family, steps in mild.items() for strength in steps]
    return (
        f"the median log-odds are {real:.1f} for the training pictures themselves, {fine['log_odds_median']:.1f} "
        f"({_percent(fine['recognised'])} % recognised) when all above 1/8 cycles per pixel is gone, "
        f"{sharp['4']['log_odds_median']:.1f} ({_percent(sharp['4']['recognised'])} %) when detail is exaggerated fivefold, and "
        f"{coarse['log_odds_median']:.1f} ({_percent(coarse['recognised'])} %) when only what is above 1/16 is left; shuffled tiles "
        f"of 16 px, which keep the detail inside them and lose the content, have {tiles['16']['log_odds_median']:.1f} "
        f"({_percent(tiles['16']['recognised'])} %). Blur up to 2 px, shifts up to 4 px and noise up to 0.1 leave the median between "
        f"{min(medians):.1f} and {max(medians):.1f}: a change of `semantic` within that is no loss of content. `recognised` is near its "
        "ceiling for what mini-image draws, so it shows losses of content and no gains."
    )


def _generated_rows(generated: dict, classes: int) -> str:
    lines = ["| prompts | guidance | n | recognised, % | log-odds: median | lowest decile | another prompt's: recognised, % | log-odds median |",
             "|---|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name, scale in (("plain", "none"), ("cfg", f"{generated['guidance']:g}")):
        for which in ("study", "others"):
            row = generated[f"{name}_{which}"]
            other = row["mismatched"]
            lines.append(
                f"| {which} | {scale} | {row['n']} | {_percent(row['recognised'])} | {row['log_odds_median']:.1f} | "
                f"{row['log_odds_low_decile']:.1f} | {_percent(other['recognised'])} | {other['log_odds_median']:.1f} |"
            )
    return "\n".join(lines) + f"\n\nChance is {100 / classes:.2f} %."


def _bins(calibration: dict) -> str:
    lines = ["| confidence, mean of the bin | pictures | right, % |", "|---:|---:|---:|"]
    lines += [f"| {sure:.3f} | {n} | {_percent(share)} |" for n, sure, share in calibration["bins"]]
    return "\n".join(lines)


def _missed(generated: dict) -> str:
    parts = []
    for name in ("plain_study", "plain_others", "cfg_study", "cfg_others"):
        missed = generated[name]["missed"]
        if missed:
            parts.append(f"{name.replace('_', ', ')}: " + ", ".join(f"{p} (taken for {k})" for p, k in missed.items()))
    return "; ".join(parts) if parts else "none"


def write_judge_card(n: dict, training: dict) -> str:
    """Text of the card, from `metrics.json` and `training.json`."""
    c, held, shared = training["config"], n["held_out"], n["shared_classes"]
    views = c["steps"] * c["batch"] / n["pictures"]
    same = "; ".join(" = ".join(group) for group in shared)
    cost = training["seconds"] / 60
    return f"""{FRONT}
# mini-image-judge

Says which caption a 64 px picture shows: {n["classes"]} classes, {n["parameters"]:,} parameters, {n["bytes"] / 1e6:.2f} MB. It measures
*content* for `mini-image`: whether the prompt is still in a picture whose detail was changed. It knows this data set
and nothing else.

```python
from workbench.sampling.semantic import load_judge

judge = load_judge("mini-image")
log_odds, recognised = judge.judge(images, prompts)
judge.unknown(prompts)  # names the prompts that are no caption; they get NaN
```

`semantic` is ln p − ln(1 − p) of the prompt's own class, `recognised` is 1 where that class is the most probable.

## How it is made to judge content

A fixed binomial filter halves the picture before anything is learnt: it passes 0.35 of the amplitude at 1/4 cycles per
pixel and none at 1/2. The network ends in a mean over places, and every training picture was moved (±8 px), scaled
(0.75 to 1.25), turned (±10°), recoloured (hues stay), blurred (to 2.5 px) or sharpened or made of fewer pixels, made
noisy (sd to 0.15, fine or in patches), partly covered, JPEG-coded (quality 10 to 70), each at random; half of the pictures
had been through mini-image's autoencoder, with noise of 0, 0.2 or 0.4 sd on the latents. It never saw a generated picture.

Classes are captions. Pictures that differ by less than 2 % (root mean square) share a class: {same}.

## What it can do, and what not

Undisturbed training pictures: {_percent(n["real"]["recognised"])} % of {n["real"]["n"]}, median log-odds {n["real"]["log_odds_median"]:.1f}. Random disturbances as in training, of other
seeds: **{_percent(held["recognised"])} %** of {held["n"]} (among five: {_percent(held["among_five"])} %). There is one picture a caption, so there are no held-out
*pictures*: it says whether a picture is that picture, disturbed, and not what a new drawing of a dog would be.

What mini-image draws ({n["generated"]["steps"]} steps; `study`: the {n["generated"]["plain_study"]["n"]} study prompts, `others`: {n["generated"]["plain_others"]["n"]} other captions drawn at random):

{_generated_rows(n["generated"], n["classes"])}

Not recognised: {_missed(n["generated"])}.

{n["curve_pictures"]} training pictures, drawn at random, disturbed by one thing at a time (strengths above those of the training included):

{curve_rows(n["curves"])}

How to read it: {reading(n)}

## Calibration

Logits are divided by {n["temperature"]:g}, fitted on held-out augmentations (Guo et al. 2017). On others of these: expected calibration
error {held["calibration"]["ece"]:.3f} ({BINS} bins), cross-entropy {held["calibration"]["cross_entropy"]:.3f}. On generated pictures (study prompts): {n["generated"]["plain_study"]["calibration"]["ece"]:.3f} without and
{n["generated"]["cfg_study"]["calibration"]["ece"]:.3f} with guidance. Random disturbances, by confidence:

{_bins(held["calibration"])}

Log-odds beyond about ln {held["n"]} = {math.log(held["n"]):.0f} can't be checked with so many pictures: read them as a graded scale, not as a probability.

## Files

`judge.json` (classes, widths, temperature), `judge.safetensors` (float16, loads as float32), `reference.json` (ln band power
of the {n["pictures"]} training pictures, their mean and spread; written by `benchmarks/measures.py`), `study-prompts.txt` (a seeded
random choice of captions, each Unicode group by its share), `metrics.json` and `training.json` (what this card is written from).

## Training, data, licence

{c["steps"]:,} steps of {c["batch"]} pictures ({views:.0f} views of each) in {cost:.0f} minutes on one CPU core, shared with other work; AdamW {c["lr"]:g}, weight decay
{c["weight_decay"]:g}, half a cosine, average of weights {c["ema"]}, bfloat16 autocast, seed {c["seed"]}. Data, art and licence are those of
`mini-image`: Microsoft Fluent emoji (MIT, notice in `LICENSE-fluentui-emoji`), captions from `unicode-emoji-json` (MIT). The
weights are under the MIT licence. Versions: {", ".join(f"{k} {v}" for k, v in n["versions"].items())}.

Repeat it: `python -m workbench.models.mini fetch`, then `judge` (trains, or continues from its checkpoint, measures, writes
this card), then `python -m benchmarks.measures` (reference and `docs/measures.md`).
"""
