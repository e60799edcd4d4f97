"""Writing a trained run as an ordinary diffusers folder."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from . import data
from .dit import MiniModel, make_pipeline
from .text import make_tokenizer

BUDGET_BYTES = 45_000_000
"""Largest total size of the folder in git."""


def write_run(
    work: Path,
    target: Path,
    *,
    make_tokenizer: Callable[[list[str]], Any],
    make_model: Callable[[Any, dict], Any],
    make_pipeline: Callable[[Any, Any, Any], Any],
    autoencoder: Any,
    samples: str,
    notice: tuple[str, str],
) -> Path:
    """Write the run in ``work`` to the folder ``target``, which is replaced only once the new one is complete.

    The averaged weights are written. The transformer and the autoencoder are stored in float16 (diffusers loads them as
    float32 unless told otherwise), text encoders in float32 (transformers loads them as they are stored).

    Parameters
    ----------
    make_tokenizer, make_model, make_pipeline
        A tokenizer of the captions; the untrained model of the tokenizer and the run's config; a pipeline of the trained
        model, the tokenizer and the autoencoder.
    autoencoder
        Class of the autoencoder in ``work / "vae"``.
    samples
        What the checkpoint calls the number of samples it has seen.
    notice
        File name and text of the notice that the training set asks for.
    """
    state = torch.load(work / "checkpoint.pt", map_location="cpu")
    captions = json.loads((work / "captions.json").read_text(encoding="utf-8"))["captions"]
    tokenizer = make_tokenizer(captions)
    model = make_model(tokenizer, state["config"]).eval().requires_grad_(False)
    model.load_state_dict(state["ema"])
    vae = autoencoder.from_pretrained(work / "vae")
    half = copy.copy(model)
    half.transformer = copy.deepcopy(model.transformer).half()
    part = target.with_name(f".{target.name}-part")
    shutil.rmtree(part, ignore_errors=True)
    make_pipeline(half, tokenizer, vae.half()).save_pretrained(part, safe_serialization=True)
    name, text = notice
    (part / name).write_text(text, encoding="utf-8")
    facts = {name: state[name] for name in ("step", samples, "seconds", "config", "history")}
    (part / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    swap(part, target)
    return target


def export(work: Path, target: Path) -> Path:
    """Write the run of ``mini-image`` in ``work`` to the folder ``target``, see `write_run`."""
    return write_run(
        work,
        target,
        make_tokenizer=make_tokenizer,
        make_model=lambda tokenizer, config: MiniModel(tokenizer, config["layers"], config["heads"]),
        make_pipeline=make_pipeline,
        autoencoder=AutoencoderKL,
        samples="images",
        notice=("LICENSE-fluentui-emoji", data.MIT_NOTICE),
    )


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
