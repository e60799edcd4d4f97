"""Experiments done by hand: plain forward hooks on the transformer, called with arguments caught from the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tests.tiny import encode, tiny_pipeline
from tests.tiny_wan import SIZE, encode_wan, tiny_wan


@dataclass(frozen=True)
class Family:
    """What a hook has to know of a family.

    Attributes
    ----------
    name : str
    make, encode : callable
        The tiny pipeline, and its embeddings.
    options : dict
        Further settings of a recording.
    stack : str
        Attribute of the list of blocks.
    branches : tuple of tuple of str
        Of every call of a step, in order.
    """

    name: str
    make: Callable[[], Any]
    encode: Callable[..., Any]
    options: dict[str, Any]
    stack: str
    branches: tuple[tuple[str, ...], ...]


SD3 = Family("sd3", tiny_pipeline, encode, {}, "transformer_blocks", (("uncond", "cond"),))
WAN = Family("wan", tiny_wan, encode_wan, SIZE, "blocks", (("cond",), ("uncond",)))
FAMILIES = (SD3, WAN)


def host(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy().copy()


def calls_of(pipe: Any, arguments: dict[str, Any]) -> tuple[list[dict[str, Any]], Any]:
    """Keyword arguments of every call of the transformer, and what the pipeline returned."""
    calls: list[dict[str, Any]] = []
    handle = pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(
            {k: v.clone() if torch.is_tensor(v) else v for k, v in kwargs.items()}
        ),
        with_kwargs=True,
    )
    try:
        return calls, pipe(**arguments, output_type="np")[0]
    finally:
        handle.remove()


@dataclass
class Forward:
    """States after every block (and the one that enters the first), its modulation, and the projection's output."""

    hidden: dict[str, np.ndarray]
    modulation: dict[str, np.ndarray]
    raw: dict[str, torch.Tensor]


def forward(
    family: Family, net: torch.nn.Module, kwargs: dict[str, Any], edit: dict[str, Callable[[Any], Any]] | None = None
) -> Forward:
    """One plain call under hooks; `edit` changes what the projection gives to a block."""
    seen, edit, handles = Forward({}, {}, {}), edit or {}, []
    blocks = {f"{family.stack}.{i}": block for i, block in enumerate(getattr(net, family.stack))}

    def keep_output(path: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            seen.hidden[path] = host(output[1] if family is SD3 else output)

        return hook

    def project(path: str) -> Callable[..., Any]:
        def hook(module: Any, args: Any, raw: torch.Tensor) -> torch.Tensor:
            raw = edit[path](raw.clone()) if path in edit else raw
            seen.raw[path] = raw.clone()
            seen.modulation[path] = host(raw).reshape(len(raw), 6, -1)
            return raw

        return hook

    def enter(path: str) -> Callable[..., Any]:
        def hook(module: Any, args: Any, kwargs: Any) -> Any:
            if path.endswith(".0"):
                seen.hidden["input"] = host(kwargs["hidden_states"] if family is SD3 else args[0])
            if family is SD3:
                return None
            h, text, raw, rope = args
            raw = edit[path](raw.clone()) if path in edit else raw
            seen.raw[path] = raw.clone()
            seen.modulation[path] = host(module.scale_shift_table + raw)
            return (h, text, raw, rope), kwargs

        return hook

    for path, block in blocks.items():
        handles.append(block.register_forward_pre_hook(enter(path), with_kwargs=True))
        handles.append(block.register_forward_hook(keep_output(path)))
        if family is SD3:
            handles.append(block.norm1.linear.register_forward_hook(project(path)))
    try:
        with torch.no_grad():
            net(**kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def with_terms(family: Family, terms: tuple[int, ...], other: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """An edit that takes these of the six terms from another call's projection."""

    def edit(raw: torch.Tensor) -> torch.Tensor:
        mine, theirs = (value.reshape(len(value), 6, -1) for value in (raw, other))
        for term in terms:
            mine[:, term] = theirs[:, term]
        return mine.reshape(raw.shape)

    return edit
