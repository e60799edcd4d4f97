"""Command line of mini-video's scripts: ``python -m workbench.models.mini.video fetch|train-vae|encode|train|export|card``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import EMBEDDED
from ..commands import add_export_and_card, add_train, add_train_vae, parser_of, settings, write_card_of
from ..data import default_work


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("python -m workbench.models.mini.video", __doc__, default_work().with_name("mini-video"))
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="download clips and names (0.7 GB), build the training set")
    vae = add_train_vae(commands, minutes=25, batch=4, lr=2e-3)
    vae.add_argument("--start-from", type=Path, help="folder of an autoencoder to go on from")
    commands.add_parser("encode", help="make the latents that training reads (may run beside the first part of it)")
    train = add_train(commands, steps=4_200, batch=16)
    train.add_argument("--still-steps", type=int, default=1_200, help="steps on single frames before clips")
    train.add_argument("--still-batch", type=int, default=64)
    train.add_argument(
        "--focus-from", type=int, default=1 << 62, help="step from which on only some captions are trained"
    )
    train.add_argument("--focus", type=int, default=96, help="how many: the prompts of card and study, and others")
    add_export_and_card(commands, EMBEDDED["mini-video"])
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
        trainer = Trainer(settings(Config, args), args.work, vae, args.device)
        trainer.run(args.save_minutes, args.grid_minutes, vae)
    elif args.command == "export":
        from .export import export

        print(export(args.work, args.target))
    elif args.command == "card":
        from .card import finish
        from .evaluate import evaluate

        print(write_card_of(args, evaluate, finish))


if __name__ == "__main__":
    main()
