"""Which model is this? A fingerprint that survives copying, renaming and a change of device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.models.generate import Encode

_SAMPLES = 16
_CHUNK = 1 << 24


def fingerprint(pipe: Any, *, revision: str | None = None) -> dict[str, str | None]:
    """Identify the transformer of a pipeline.

    Returns
    -------
    dict
        ``transformer_class``; ``config_hash`` (of the transformer's config without paths and versions);
        ``weight_hash`` (of every parameter's sum and of some of its elements, rounded to bfloat16, so that one
        checkpoint loaded as float32 or as bfloat16 has one hash); ``repo`` and ``revision`` where they are known.
    """
    transformer = pipe.transformer
    repo = pipe.config.get("_name_or_path") if hasattr(pipe, "config") else None
    return {
        "transformer_class": type(transformer).__name__,
        "config_hash": _config_hash(transformer),
        "weight_hash": weight_hash(transformer),
        # A folder's path says where a model lay on one machine, not which model it is.
        "repo": repo if repo and repo.count("/") == 1 and not repo.startswith((".", "/", "~")) else None,
        "revision": revision,
    }


def component_hashes(pipe: Any, encode: Encode | None = None) -> dict[str, str]:
    """Weight hashes of what else computes the images: the VAE, and the text encoders unless embeddings are given."""
    import torch

    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {
        name: weight_hash(part)
        for name, part in parts.items()
        if name != "transformer" and not (encode and name.startswith("text_encoder"))
    }


def embedding_hash(encode: Encode | None, prompts: Sequence[str]) -> str | None:
    """SHA-256 (16 hex digits) over all prompts' embeddings, where these are given in place of texts; else None."""
    import torch

    if encode is None:
        return None
    digest = hashlib.sha256()
    for name, value in sorted(encode(prompts).items()):
        digest.update(name.encode())
        if torch.is_tensor(value):
            digest.update(value.detach().float().cpu().numpy().tobytes())
        elif hasattr(value, "__array_interface__"):  # an image: its repr is its place in memory
            digest.update(np.ascontiguousarray(value).tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()[:16]


def _config_hash(transformer: Any) -> str:
    config = {k: v for k, v in dict(transformer.config).items() if not k.startswith("_")}
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=list).encode()).hexdigest()[:16]


def weight_hash(module: Any) -> str:
    """SHA-256 (16 hex digits) over names, shapes, a fixed sample and the exact sum of all parameters.

    The sum, of the bfloat16 bit patterns as integers, sees any single weight that was changed.
    """
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        flat = value.detach().reshape(-1)
        index = torch.linspace(0, max(flat.numel() - 1, 0), min(_SAMPLES, flat.numel())).long()
        sample = flat[index.to(flat.device)].to(torch.bfloat16).cpu().view(torch.int16)
        digest.update(sample.numpy().tobytes())
        for part in flat.split(_CHUNK):
            total = part.to(torch.bfloat16).view(torch.int16).sum(dtype=torch.int64)
            digest.update(str(int(total)).encode())
    return digest.hexdigest()[:16]
