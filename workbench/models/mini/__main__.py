"""Command line of the training scripts: ``python -m workbench.models.mini fetch|train-vae|train|judge|...``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from . import EMBEDDED, JUDGES
from .data import default_work


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workbench.models.mini", description=__doc__)
    parser.add_argument("--work", type=Path, default=default_work(), help="folder of downloads and checkpoints")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's choice")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="download the pictures and names, build the training set")
    vae = commands.add_parser("train-vae", help="train the autoencoder")
    vae.add_argument("--minutes", type=float, default=12)
    vae.add_argument("--steps", type=int, help="train this many steps instead (deterministic)")
    vae.add_argument("--batch", type=int, default=16)
    vae.add_argument("--lr", type=float, default=1e-3)
    vae.add_argument("--decoder-only", action="store_true", help="sharpen a trained one; its latents stay the same")
    train = commands.add_parser("train", help="train the transformer and text encoders, or continue")
    train.add_argument("--steps", type=int, default=12_000, help="the rate decays to zero up to this step")
    train.add_argument("--batch", type=int, default=32)
    train.add_argument("--lr", type=float, default=8e-4)
    train.add_argument("--decay-share", type=float, default=0.2)
    train.add_argument("--sigma-mean", type=float, default=0.5)
    train.add_argument("--shift-share", type=float, default=0.0)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--compile", action="store_true", help="torch.compile the blocks: a fifth faster on CPU")
    train.add_argument("--save-minutes", type=float, default=5)
    train.add_argument("--grid-minutes", type=float, default=15)
    judge = commands.add_parser("judge", help="train the classifier that judges content, or continue; then measure it")
    judge.add_argument("--steps", type=int, default=6000)
    judge.add_argument("--batch", type=int, default=128)
    judge.add_argument("--lr", type=float, default=3e-3)
    judge.add_argument("--seed", type=int, default=0)
    judge.add_argument("--save-minutes", type=float, default=2)
    judge.add_argument("--target", type=Path, default=JUDGES["mini-image"], help="the judge's folder")
    judge.add_argument("--measure-only", action="store_true", help="measure the folder there is; write its card")
    judge.add_argument("--text-only", action="store_true", help="rewrite the card from the metrics.json there is")
    for name, text in (("export", "write the diffusers folder"), ("card", "measure it; write figures and card")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--target", type=Path, default=EMBEDDED["mini-image"])
    command.add_argument("--text-only", action="store_true", help="rewrite the card from the metrics.json there is")
    command.add_argument("--judgement", type=Path, help="JSON with verdicts by prompt, see card.write_card")
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
        names = ("steps", "batch", "lr", "seed", "compile", "decay_share", "sigma_mean", "shift_share")
        config = Config(**{name: getattr(args, name) for name in names})
        Trainer(config, args.work, latents, captions, args.device).run(args.save_minutes, args.grid_minutes, vae)
    elif args.command == "judge":
        from .judge_card import finish_judge
        from .judge_train import JudgeTraining, train_judge

        settings = JudgeTraining(**{name: getattr(args, name) for name in ("steps", "batch", "lr", "seed")})
        trained = None if args.measure_only or args.text_only else train_judge(args.work, settings, args.save_minutes)
        print(finish_judge(args.target, args.work, trained, text_only=args.text_only))
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
