"""Writing a trained run as an ordinary diffusers folder."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from . import data
from .dit import MiniModel, make_pipeline
from .text import make_tokenizer

BUDGET_BYTES = 45_000_000
"""Largest total size of the folder in git."""


def load_run(work: Path, layers: int | None = None) -> tuple[MiniModel, object, dict]:
    """EMA model, tokenizer and facts (steps, seconds, config) of the checkpoint in ``work``."""
    state = torch.load(work / "checkpoint.pt", map_location="cpu")
    captions = json.loads((work / "captions.json").read_text(encoding="utf-8"))["captions"]
    tokenizer = make_tokenizer(captions)
    config = state["config"]
    model = MiniModel(tokenizer, layers or config["layers"], config["heads"]).eval().requires_grad_(False)
    model.load_state_dict(state["ema"])
    return model, tokenizer, {name: state[name] for name in ("step", "images", "seconds", "config", "history")}


def export(work: Path, target: Path) -> Path:
    """Write the run in ``work`` to the folder ``target``, which is replaced only once the new one is complete.

    The transformer and the autoencoder are stored in float16 (diffusers loads them as float32 unless told
    otherwise), the text encoders in float32 (transformers loads them as they are stored).
    """
    model, tokenizer, facts = load_run(work)
    vae = AutoencoderKL.from_pretrained(work / "vae")
    half = copy.copy(model)
    half.transformer = copy.deepcopy(model.transformer).half()
    part = target.with_name(f".{target.name}-part")
    shutil.rmtree(part, ignore_errors=True)
    make_pipeline(half, tokenizer, vae.half()).save_pretrained(part, safe_serialization=True)
    (part / "LICENSE-fluentui-emoji").write_text(data.MIT_NOTICE, encoding="utf-8")
    (part / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    swap(part, target)
    return target


def swap(part: Path, target: Path) -> None:
    """Put the finished folder ``part`` in the place of ``target``."""
    for path in part.rglob("*"):
        if path.is_file():
            path.chmod(0o644)  # safetensors writes files that only their owner can read
    old = target.with_name(f".{target.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(part, target)
    shutil.rmtree(old, ignore_errors=True)


def folder_bytes(folder: Path) -> int:
    """Total size of the files in ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
