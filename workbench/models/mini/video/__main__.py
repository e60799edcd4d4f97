"""Command line of mini-video's scripts: ``python -m workbench.models.mini.video fetch|train-vae|encode|train|export|card``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .. import EMBEDDED
from ..data import default_work


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workbench.models.mini.video", description=__doc__)
    work = default_work().with_name("mini-video")
    parser.add_argument("--work", type=Path, default=work, help="folder of downloads and checkpoints")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's choice")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="download clips and names (0.7 GB), build the training set")
    vae = commands.add_parser("train-vae", help="train the autoencoder")
    vae.add_argument("--minutes", type=float, default=25)
    vae.add_argument("--steps", type=int, help="train this many steps instead (deterministic)")
    vae.add_argument("--batch", type=int, default=4)
    vae.add_argument("--lr", type=float, default=2e-3)
    vae.add_argument("--start-from", type=Path, help="folder of an autoencoder to go on from")
    vae.add_argument("--decoder-only", action="store_true", help="sharpen it with a frozen encoder")
    commands.add_parser("encode", help="make the latents that training reads (may run beside the first part of it)")
    train = commands.add_parser("train", help="train the transformer and text encoder, or continue")
    train.add_argument("--steps", type=int, default=4_200, help="the rate decays to zero up to this step")
    train.add_argument("--still-steps", type=int, default=1_200, help="steps on single frames before clips")
    train.add_argument("--batch", type=int, default=16)
    train.add_argument("--still-batch", type=int, default=64)
    train.add_argument("--lr", type=float, default=8e-4)
    train.add_argument("--decay-share", type=float, default=0.2)
    train.add_argument("--sigma-mean", type=float, default=0.5)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--compile", action="store_true", help="torch.compile the blocks")
    train.add_argument("--save-minutes", type=float, default=5)
    train.add_argument("--grid-minutes", type=float, default=15)
    for name, text in (("export", "write the diffusers folder"), ("card", "measure it; write figures and card")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--target", type=Path, default=EMBEDDED["mini-video"])
    command.add_argument("--text-only", action="store_true", help="rewrite the card from the metrics.json there is")
    command.add_argument("--judgement", type=Path, help="JSON with verdicts by prompt")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run one command."""
    args = _parser().parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    from . import data

    if args.command == "fetch":
        print(f"{len(data.build(args.work).captions)} captioned clips in {args.work}")
        return
    import torch
    from diffusers import AutoencoderKLWan

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.command == "train-vae":
        from .vae import train_vae

        print(train_vae(data.build(args.work), args.work, args.minutes, batch=args.batch, lr=args.lr,
                        device=args.device, max_steps=args.steps, start_from=args.start_from,
                        decoder_only=args.decoder_only))  # fmt: skip
    elif args.command in ("encode", "train"):
        from .train import CLIPS, STILLS, Config, Trainer, latents

        vae = AutoencoderKLWan.from_pretrained(args.work / "vae").to(args.device).eval()
        if args.command == "encode":
            latents(args.work, vae, 1, STILLS, progress=True)
            latents(args.work, vae, data.FRAMES, CLIPS, progress=True)
            return
        names = ("steps", "still_steps", "batch", "still_batch", "lr", "decay_share", "sigma_mean", "seed", "compile")
        config = Config(**{name: getattr(args, name) for name in names})
        Trainer(config, args.work, vae, args.device).run(args.save_minutes, args.grid_minutes, vae)
    elif args.command == "export":
        from .export import export

        print(export(args.work, args.target))
    elif args.command == "card":
        from .card import finish
        from .evaluate import evaluate

        if args.text_only:
            numbers, shots = json.loads((args.target / "metrics.json").read_text(encoding="utf-8")), None
        else:
            numbers, shots = evaluate(args.target, args.work)
        judged = json.loads(args.judgement.read_text(encoding="utf-8")) if args.judgement else None
        finish(args.target, numbers, shots, judged)
        print(args.target / "README.md")


if __name__ == "__main__":
    main()
