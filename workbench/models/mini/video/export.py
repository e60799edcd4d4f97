"""Writing a trained run as an ordinary diffusers folder."""

from __future__ import annotations

from pathlib import Path

from diffusers import AutoencoderKLWan

from ..data import MIT_NOTICE
from ..export import write_run
from .dit import MiniVideo, make_pipeline, make_tokenizer

NOTICE = (
    MIT_NOTICE.replace("pictures that mini-image was", "clips that mini-video was")
    .replace("Fluent emoji\n", "animated Fluent\nemoji ")
    .replace("fluentui-emoji)", "fluentui-emoji-animated)")
)


def export(work: Path, target: Path) -> Path:
    """Write the run of ``mini-video`` in ``work`` to the folder ``target``, see `write_run`."""
    return write_run(
        work,
        target,
        make_tokenizer=make_tokenizer,
        make_model=lambda tokenizer, c: MiniVideo(tokenizer, c["layers"], c["heads"], c["ffn"]),
        make_pipeline=make_pipeline,
        autoencoder=AutoencoderKLWan,
        samples="clips",
        notice=("LICENSE-fluentui-emoji-animated", NOTICE),
    )
