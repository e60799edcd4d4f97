"""The reference recorder: plain forward hooks, everything kept in memory. What the workbench records must equal it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def hook_recording(pipe: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run the pipeline under plain hooks.

    Returns
    -------
    dict
        ``hidden[layer]``, ``modulation[layer]``, ``temb``: lists with one array a call, rows as the pipeline batches
        them; and ``latents``, the pipeline's result.
    """
    net = pipe.transformer
    hidden: dict[str, list[np.ndarray]] = {"input": []}
    modulation: dict[str, list[np.ndarray]] = {}
    temb: list[np.ndarray] = []
    handles = []

    def host(tensor: torch.Tensor) -> np.ndarray:
        return tensor.detach().float().cpu().numpy().copy()

    def keep(sink: list[np.ndarray], pick: Any) -> Any:
        return lambda module, args, output: sink.append(host(pick(output)))

    for i, block in enumerate(net.transformer_blocks):
        layer = f"transformer_blocks.{i}"
        hidden[layer], modulation[layer] = [], []
        handles.append(block.register_forward_hook(keep(hidden[layer], lambda out: out[1])))
        handles.append(block.norm1.linear.register_forward_hook(keep(modulation[layer], lambda out: out)))
    handles.append(
        net.transformer_blocks[0].register_forward_pre_hook(
            lambda module, args, kwargs: hidden["input"].append(host(kwargs["hidden_states"])), with_kwargs=True
        )
    )
    handles.append(net.time_text_embed.register_forward_hook(keep(temb, lambda out: out)))
    try:
        latents = pipe(**arguments, output_type="latent").images
    finally:
        for handle in handles:
            handle.remove()
    return {"hidden": hidden, "modulation": modulation, "temb": temb, "latents": host(latents)}
