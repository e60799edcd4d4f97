"""Experiments done by hand: plain forward hooks on the transformer, called with arguments caught from the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tests.tiny import encode, tiny_pipeline
from tests.tiny_flux2 import SIZE as tiny_flux2_size
from tests.tiny_flux2 import encode_flux2, tiny_flux2
from tests.tiny_wan import SIZE as tiny_wan_size
from tests.tiny_wan import encode_wan, tiny_wan


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
    paths : tuple of str
        Three blocks, in order of execution.
    branches : tuple of tuple of str
        Of every call of a step, in order.
    """

    name: str
    make: Callable[[], Any]
    encode: Callable[..., Any]
    options: dict[str, Any]
    paths: tuple[str, str, str]
    branches: tuple[tuple[str, ...], ...]


SD3 = Family(
    "sd3", tiny_pipeline, encode, {}, tuple(f"transformer_blocks.{i}" for i in range(3)), (("uncond", "cond"),)
)
WAN = Family(
    "wan", tiny_wan, encode_wan, tiny_wan_size, tuple(f"blocks.{i}" for i in range(3)), (("cond",), ("uncond",))
)
FLUX2 = Family(
    "flux2", tiny_flux2, encode_flux2, tiny_flux2_size,
    ("transformer_blocks.0", "transformer_blocks.1", "single_transformer_blocks.0"), (("cond",),),
)  # fmt: skip
FAMILIES = (SD3, WAN, FLUX2)
TEXT_TOKENS, WIDTH = 5, 32


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

    def image_of(path: str, output: Any) -> torch.Tensor:
        if path.startswith("single"):
            return output[:, TEXT_TOKENS:]
        return output if family is WAN else output[1]

    def edited(path: str, raw: torch.Tensor) -> torch.Tensor:
        raw = edit[path](raw.clone()) if path in edit else raw
        seen.raw[path] = raw.clone()
        return raw

    def keep_output(path: str) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:
            seen.hidden[path] = host(image_of(path, output))

        return hook

    def project(path: str) -> Callable[..., Any]:
        def hook(module: Any, args: Any, raw: torch.Tensor) -> torch.Tensor:
            raw = edited(path, raw)
            seen.modulation[path] = host(raw).reshape(len(raw), -1, WIDTH)[:, :6]
            return raw

        return hook

    def enter(path: str) -> Callable[..., Any]:
        def hook(module: Any, args: Any, kwargs: Any) -> Any:
            if path == family.paths[0]:
                seen.hidden["input"] = host(args[0] if family is WAN else kwargs["hidden_states"])
            if family is WAN:
                h, text, raw, rope = args
                raw = edited(path, raw)
                seen.modulation[path] = host(module.scale_shift_table + raw)
                return (h, text, raw, rope), kwargs
            if family is FLUX2:
                name = "temb_mod" if path.startswith("single") else "temb_mod_img"
                raw = edited(path, kwargs[name])
                six = np.full((len(raw), 6, WIDTH), np.nan, dtype="float32")
                parts = host(raw).reshape(len(raw), -1, WIDTH)
                six[:, : parts.shape[1]] = parts
                seen.modulation[path] = six
                return args, {**kwargs, name: raw}
            return None

        return hook

    for path in family.paths:
        block = net.get_submodule(path)
        handles.append(block.register_forward_pre_hook(enter(path), with_kwargs=True))
        handles.append(block.register_forward_hook(keep_output(path)))
        if family is SD3:
            handles.append(block.get_submodule("norm1.linear").register_forward_hook(project(path)))
    try:
        with torch.no_grad():
            net(**kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def with_terms(family: Family, terms: tuple[int, ...], other: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """An edit that takes these of the terms (as far as the block has them) from another call's projection."""
    count = 6 if family is WAN else other.shape[-1] // WIDTH

    def edit(raw: torch.Tensor) -> torch.Tensor:
        mine, theirs = (value.reshape(len(value), count, -1) for value in (raw, other))
        for term in terms:
            if term < count:
                mine[:, term] = theirs[:, term]
        return mine.reshape(raw.shape)

    return edit
