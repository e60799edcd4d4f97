"""Writing a trained run as an ordinary diffusers folder."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from transformers import PreTrainedTokenizerFast

from ..data import MIT_NOTICE
from ..export import swap
from .dit import MiniVideo, make_pipeline, make_tokenizer


def load_run(work: Path) -> tuple[MiniVideo, PreTrainedTokenizerFast, dict]:
    """Averaged model, tokenizer and facts (steps, clips, seconds, config, history) of the checkpoint in ``work``."""
    state = torch.load(work / "checkpoint.pt", map_location="cpu")
    captions = json.loads((work / "captions.json").read_text(encoding="utf-8"))["captions"]
    tokenizer = make_tokenizer(captions)
    config = state["config"]
    model = MiniVideo(tokenizer, config["layers"], config["heads"], config["ffn"]).eval().requires_grad_(False)
    model.load_state_dict(state["ema"])
    return model, tokenizer, {name: state[name] for name in ("step", "clips", "seconds", "config", "history")}


def export(work: Path, target: Path) -> Path:
    """Write the run in ``work`` to the folder ``target``, which is replaced only once the new one is complete.

    The transformer and the autoencoder are stored in float16 (diffusers loads them as float32 unless told
    otherwise), the text encoder in float32 (transformers loads it as it is stored).
    """
    model, tokenizer, facts = load_run(work)
    vae = AutoencoderKLWan.from_pretrained(work / "vae")
    half = copy.copy(model)
    half.transformer = copy.deepcopy(model.transformer).half()
    part = target.with_name(f".{target.name}-part")
    shutil.rmtree(part, ignore_errors=True)
    make_pipeline(half, tokenizer, vae.half()).save_pretrained(part, safe_serialization=True)
    notice = MIT_NOTICE.replace("pictures that mini-image was", "clips that mini-video was")
    notice = notice.replace("Fluent emoji\n", "animated Fluent\nemoji ").replace(
        "fluentui-emoji)", "fluentui-emoji-animated)"
    )
    (part / "LICENSE-fluentui-emoji-animated").write_text(notice, encoding="utf-8")
    (part / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    swap(part, target)
    return target
