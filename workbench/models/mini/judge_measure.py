"""What the judge can and can't do: every number of its card, measured on pictures that are disturbed by a known strength."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import dctn, idctn

from . import data, embedded_path
from .grid import GUIDANCE, SAMPLING_STEPS, draw_prompts
from .judge import JudgeConfig, class_logits, load_net, log_odds, to_pictures
from .judge_augment import augmented, blurred, jpeg, moved, noisy, sharpened, tiles_shuffled, vae_trip

BINS = 10
STUDY = 64
HELD_OUT_BATCHES = 24
OTHER_PROMPTS = 128
CURVE_PICTURES = 512
Pictures = torch.Tensor


def spread_prompts(captions: Sequence[str], groups: Sequence[str], count: int = STUDY, seed: int = 0) -> list[str]:
    """Seeded random choice of `count` captions, shared among the data set's groups in proportion to their size.

    Every group gets at least one; what is left over goes to the largest remainders. In the order of the data set.
    """
    names, sizes = np.unique(np.asarray(groups), return_counts=True)
    exact = count * sizes / sizes.sum()
    share = np.maximum(1, np.floor(exact)).astype(int)
    for k in np.argsort(share - exact, kind="stable")[: max(0, count - share.sum())]:
        share[k] += 1
    rng = np.random.default_rng(seed)
    rows = [
        rng.choice(np.flatnonzero(np.asarray(groups) == name), n, replace=False)
        for name, n in zip(names, share, strict=True)
    ]
    return [captions[i] for i in sorted(np.concatenate(rows).tolist())]


def caption_groups(work: Path, captions: Sequence[str]) -> list[str]:
    """Group of each caption in the Unicode list of emoji ("Food & Drink", …)."""
    _, names = data.fetch(work)
    table = json.loads(names.read_text(encoding="utf-8"))
    by_caption = {data.caption(row["name"]): str(row["group"]) for row in table.values()}
    return [by_caption[caption] for caption in captions]


def octave_filtered(pictures: Pictures, above: float, to: float) -> Pictures:
    """Keep only terms of the cosine transform with frequencies (cycles per pixel) in that range; the mean always stays."""
    spectrum = dctn(pictures.numpy(), axes=(2, 3), norm="ortho")
    sizes = pictures.shape[-2:]
    radius = np.hypot(*np.meshgrid(*(np.arange(size) / (2 * size) for size in sizes), indexing="ij"))
    kept = spectrum * (((radius > above) & (radius <= to)) | (radius == 0))
    return torch.from_numpy(idctn(kept, axes=(2, 3), norm="ortho")).float().clamp(0, 1)


OCTAVES: dict[str, tuple[float, float]] = {
    "above 1/4": (0, 1 / 4),
    "above 1/8": (0, 1 / 8),
    "above 1/16": (0, 1 / 16),
    "above 1/32": (0, 1 / 32),
    "below 1/32": (1 / 32, 9),
    "below 1/16": (1 / 16, 9),
}
"""What is taken away, and the frequencies (above, up to) in cycles per pixel that are kept."""

Disturbance = Callable[[Pictures, Any, torch.Generator], Pictures]


def disturbances(vae: Any) -> dict[str, tuple[Disturbance, Sequence[Any]]]:
    """Disturbances and their strengths by family. The last family takes the content away and leaves the detail."""
    return {
        "gaussian blur, px": (lambda x, s, g: blurred(x, s), (0.5, 1, 1.5, 2, 3, 4, 6)),
        "unsharp mask, amount": (lambda x, a, g: sharpened(x, a), (0.5, 1, 2, 4, 8)),
        "white noise, sd": (lambda x, s, g: noisy(x, s, g), (0.02, 0.05, 0.1, 0.2, 0.3)),
        "shift, px": (lambda x, s, g: moved(x, s), (2, 4, 8, 12)),
        "JPEG, quality": (lambda x, q, g: jpeg(x, [q] * len(x)), (75, 50, 25, 10)),
        "VAE round trip, latent noise in sd": (lambda x, s, g: vae_trip(vae, x, s, g), (0.0, 0.2, 0.5, 1.0, 1.5)),
        "octaves taken away": (lambda x, name, g: octave_filtered(x, *OCTAVES[name]), tuple(OCTAVES)),
        "tiles shuffled, px": (lambda x, t, g: tiles_shuffled(x, t, g), (32, 16, 8)),
    }


def verdicts(logits: torch.Tensor, own: torch.Tensor) -> dict:
    """Share recognised, median and lower decile of the log-odds, and how many there are."""
    odds = log_odds(logits.double(), own)
    low, mid = torch.quantile(odds, torch.tensor([0.1, 0.5], dtype=torch.float64)).tolist()
    first = logits.topk(5, dim=1).indices
    return {
        "n": len(own),
        "recognised": round(float((first[:, 0] == own).double().mean()), 4),
        "among_five": round(float((first == own[:, None]).any(1).double().mean()), 4),
        "log_odds_median": round(mid, 2),
        "log_odds_low_decile": round(low, 2),
    }


def calibration(logits: torch.Tensor, own: torch.Tensor) -> dict:
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017) of the first class, and the table behind it."""
    confidence, first = logits.double().softmax(1).max(1)
    right = (first == own).double()
    which = (confidence * BINS).long().clamp(max=BINS - 1)
    rows = []
    for k in range(BINS):
        inside = which == k
        if inside.any():
            rows.append(
                [int(inside.sum()), round(float(confidence[inside].mean()), 3), round(float(right[inside].mean()), 3)]
            )
    error = sum(n * abs(sure - share) for n, sure, share in rows) / len(own)
    return {"ece": round(error, 4), "cross_entropy": round(float(F.cross_entropy(logits, own)), 4), "bins": rows}


def measure(folder: Path, work: Path) -> dict:
    """Measure the judge in `folder` on the training pictures, disturbed, and on what mini-image draws."""
    from diffusers import StableDiffusion3Pipeline

    net, config = load_net(folder)
    pixels, captions, _ = data.build(work)
    own_class = {name: k for k, group in enumerate(config.classes) for name in group}
    own = torch.tensor([own_class[c] for c in captions])
    real = to_pictures(pixels, config.size)
    pipe = StableDiffusion3Pipeline.from_pretrained(embedded_path("mini-image"), local_files_only=True)
    g = torch.Generator().manual_seed(2)

    def ask(pictures: Pictures) -> torch.Tensor:
        return class_logits(net, pictures, config.temperature)

    numbers: dict = {"temperature": config.temperature, "classes": len(config.classes), "pictures": len(captions),
                     "shared_classes": [list(group) for group in config.classes if len(group) > 1]}  # fmt: skip
    numbers["real"] = verdicts(ask(real), own)
    some = torch.from_numpy(np.sort(np.random.default_rng(4).choice(len(real), CURVE_PICTURES, replace=False)))
    numbers["curve_pictures"] = len(some)
    numbers["curves"] = {
        family: {str(strength): verdicts(ask(change(real[some], strength, g)), own[some]) for strength in strengths}
        for family, (change, strengths) in disturbances(pipe.vae).items()
    }
    numbers["held_out"] = _held_out(ask, real, own)
    prompts = (folder / "study-prompts.txt").read_text(encoding="utf-8").split("\n")
    study = [p for p in prompts if p and not p.startswith("#")]
    rest = [c for c in captions if c not in set(study)]
    others = [rest[i] for i in sorted(np.random.default_rng(5).choice(len(rest), OTHER_PROMPTS, replace=False))]
    numbers["generated"] = _generated(pipe, config, own_class, ask, study, others)
    numbers["parameters"] = sum(p.numel() for p in net.parameters())
    numbers["bytes"] = sum(f.stat().st_size for f in folder.iterdir() if f.suffix in (".json", ".safetensors"))
    numbers["versions"] = {name: __import__(name).__version__ for name in ("torch", "diffusers")} | {
        "python": platform.python_version(), "cores": os.cpu_count()
    }  # fmt: skip
    return numbers


def _held_out(ask: Callable[[Pictures], torch.Tensor], real: Pictures, own: torch.Tensor) -> dict:
    """The training's random disturbances, of seeds that neither training nor temperature have drawn."""
    logits, labels = [], []
    for i in range(HELD_OUT_BATCHES):
        g = torch.Generator().manual_seed(20_000_000 + i)
        rows = torch.randint(len(real), (128,), generator=g)
        logits.append(ask(augmented(real[rows], g)))
        labels.append(own[rows])
    return verdicts(torch.cat(logits), torch.cat(labels)) | {
        "calibration": calibration(torch.cat(logits), torch.cat(labels))
    }


def _generated(
    pipe, config: JudgeConfig, own_class: dict[str, int], ask: Callable[[Pictures], torch.Tensor],
    study: list[str], others: list[str],
) -> dict:  # fmt: skip
    """What mini-image draws, without and with guidance, judged by the prompt and by another one."""
    found: dict = {"steps": SAMPLING_STEPS, "guidance": GUIDANCE}
    for name, scale in (("plain", 1.0), ("cfg", GUIDANCE)):
        for which, prompts in (("study", study), ("others", others)):
            shots = np.concatenate([draw_prompts(pipe, prompts[i : i + 16], seed=900 + i, guidance_scale=scale)
                                    for i in range(0, len(prompts), 16)])  # fmt: skip
            logits = ask(to_pictures(shots, config.size))
            own = torch.tensor([own_class[p] for p in prompts])
            first = logits.argmax(1)
            found[f"{name}_{which}"] = verdicts(logits, own) | {
                "calibration": calibration(logits, own),
                "missed": {p: config.classes[k][0] for p, k, o in zip(prompts, first.tolist(), own.tolist(), strict=True) if k != o},
                # Each picture judged by the prompt of the next one: right means wrong here.
                "mismatched": verdicts(logits, own.roll(1)),
            }  # fmt: skip
    return found
