"""Command line of the training scripts: ``python -m workbench.models.mini fetch|train-vae|train|judge|...``."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import EMBEDDED, JUDGES
from .commands import add_export_and_card, add_train, add_train_vae, parser_of, settings, write_card_of
from .data import default_work


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("python -m workbench.models.mini", __doc__, default_work())
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="download the pictures and names, build the training set")
    add_train_vae(commands, minutes=12, batch=16, lr=1e-3)
    train = add_train(commands, steps=12_000, batch=32)
    train.add_argument("--shift-share", type=float, default=0.0)
    judge = commands.add_parser("judge", help="train the classifier that judges content, or continue; then measure it")
    judge.add_argument("--steps", type=int, default=6000)
    judge.add_argument("--batch", type=int, default=128)
    judge.add_argument("--lr", type=float, default=3e-3)
    judge.add_argument("--seed", type=int, default=0)
    judge.add_argument("--save-minutes", type=float, default=2)
    judge.add_argument("--target", type=Path, default=JUDGES["mini-image"], help="the judge's folder")
    judge.add_argument("--measure-only", action="store_true", help="measure the folder there is; write its card")
    judge.add_argument("--text-only", action="store_true", help="rewrite the card from the metrics.json there is")
    add_export_and_card(commands, EMBEDDED["mini-image"])
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run one command."""
    args = _parser().parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    from . import data

    if args.command == "fetch":
        pixels, _, _ = data.build(args.work)
        print(f"{len(pixels)} captioned pictures in {args.work}")
        return
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.command == "train-vae":
        from .vae import train_vae

        print(train_vae(data.build(args.work)[0], args.work, args.minutes, batch=args.batch, lr=args.lr,
                        device=args.device, max_steps=args.steps, decoder_only=args.decoder_only))  # fmt: skip
    elif args.command == "train":
        from diffusers import AutoencoderKL

        from .train import Config, Trainer, load_set

        vae = AutoencoderKL.from_pretrained(args.work / "vae").to(args.device).eval()
        latents, captions = load_set(args.work, vae)
        trainer = Trainer(settings(Config, args), args.work, latents, captions, args.device)
        trainer.run(args.save_minutes, args.grid_minutes, vae)
    elif args.command == "judge":
        from .judge_card import finish_judge
        from .judge_train import JudgeTraining, train_judge

        known = args.measure_only or args.text_only
        trained = None if known else train_judge(args.work, settings(JudgeTraining, args), args.save_minutes)
        print(finish_judge(args.target, args.work, trained, text_only=args.text_only))
    elif args.command == "export":
        from .export import export

        print(export(args.work, args.target))
    elif args.command == "card":
        from .card import finish
        from .evaluate import evaluate

        print(write_card_of(args, evaluate, finish))


if __name__ == "__main__":
    main()
