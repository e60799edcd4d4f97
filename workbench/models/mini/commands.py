"""What the command lines of both embedded models' scripts have in common: options, and writing the card."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def parser_of(prog: str, doc: str | None, work: Path) -> argparse.ArgumentParser:
    """Parser with the options of every command; downloads and checkpoints lie in ``work`` unless told otherwise."""
    parser = argparse.ArgumentParser(prog=prog, description=doc)
    parser.add_argument("--work", type=Path, default=work, help="folder of downloads and checkpoints")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's choice")
    return parser


def add_train_vae(commands: Any, minutes: float, batch: int, lr: float) -> argparse.ArgumentParser:
    """Add ``train-vae``; returns its parser."""
    vae = commands.add_parser("train-vae", help="train the autoencoder")
    vae.add_argument("--minutes", type=float, default=minutes)
    vae.add_argument("--steps", type=int, help="train this many steps instead (deterministic)")
    vae.add_argument("--batch", type=int, default=batch)
    vae.add_argument("--lr", type=float, default=lr)
    vae.add_argument("--decoder-only", action="store_true", help="sharpen a trained one; its latents stay the same")
    return vae


def add_train(commands: Any, steps: int, batch: int) -> argparse.ArgumentParser:
    """Add ``train``; returns its parser. Options that are fields of the run's ``Config`` are read by `settings`."""
    train = commands.add_parser("train", help="train the transformer and what encodes text, or continue")
    train.add_argument("--steps", type=int, default=steps, help="the rate decays to zero up to this step")
    train.add_argument("--batch", type=int, default=batch)
    train.add_argument("--lr", type=float, default=8e-4)
    train.add_argument("--decay-share", type=float, default=0.2)
    train.add_argument("--sigma-mean", type=float, default=0.5)
    train.add_argument("--decaying-sigma-mean", type=float, default=0.0, help="the same while the rate decays")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--compile", action="store_true", help="torch.compile the blocks: a fifth faster on CPU")
    train.add_argument("--save-minutes", type=float, default=5)
    train.add_argument("--grid-minutes", type=float, default=15)
    return train


def settings(kind: Callable[..., T], args: argparse.Namespace) -> T:
    """The dataclass ``kind`` with the fields that ``args`` has."""
    return kind(**{f.name: getattr(args, f.name) for f in fields(kind) if hasattr(args, f.name)})  # type: ignore[arg-type]


def add_export_and_card(commands: Any, target: Path) -> None:
    """Add the commands ``export`` and ``card`` of the folder ``target``."""
    for name, text in (("export", "write the diffusers folder"), ("card", "measure it; write figures and card")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--target", type=Path, default=target)
    command.add_argument("--text-only", action="store_true", help="rewrite the card from the metrics.json there is")
    command.add_argument("--judgement", type=Path, help="JSON with verdicts by prompt, see card.write_card")


def write_card_of(args: argparse.Namespace, evaluate: Callable, finish: Callable) -> Path:
    """Measure ``args.target`` (or read its numbers), write figures and card; returns the card's path."""
    if args.text_only:
        numbers, shots = json.loads((args.target / "metrics.json").read_text(encoding="utf-8")), None
    else:
        numbers, shots = evaluate(args.target, args.work)
    judged = json.loads(args.judgement.read_text(encoding="utf-8")) if args.judgement else None
    finish(args.target, numbers, shots, judged)
    return args.target / "README.md"
