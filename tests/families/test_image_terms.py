"""The parts of a modulation are what the rows of this group call them, and they are all that the first block has of the timestep."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.families.base import Family
from tests.families.test_joint_terms import Block
from tests.families.test_recorded import options
from workbench.models import layout_for
from workbench.record import record
from workbench.store import open_recording

MODULES = ("image_plain", "image_lumina", "image_joined", "image_ideogram", "image_latte", "sound")
MODULATED: tuple[Family, ...] = tuple(
    family
    for name in MODULES
    for family in importlib.import_module(f"tests.families.{name}").FAMILIES
    if family.name not in ("omnigen", "stable-audio", "ace-step")  # the timestep is a token, or one of two
)
#: Attention to the text is added without a gate; its last layer.
UNGATED = {
    "pixart": "attn2.to_out.0",
    "sana": "attn2.to_out.0",
    "latte": "attn2.to_out.0",
    "longcat-audio": "cross_attn.to_out.0",
    "stable-audio-3": "cross_attn.to_out",
}
#: What closes a gate, where that is not 0.
CLOSED = {"stable-audio-3": 60.0}


class Parts(Block):
    """With parts as they lie in these classes: one after the other, on an axis of their own, or in a list."""

    def _set(self, raw: Any, values: Mapping[str, float]) -> Any:
        names, channels = self.modulation.terms, self.image.shape[-1]
        if self.modulation.listed:
            return [torch.full_like(part, values.get(name, 0.0)) for name, part in zip(names, raw, strict=True)]
        parts = raw.clone().reshape(*raw.shape[:-1], -1, channels) if raw.shape[-1] != channels else raw.clone()
        table = self.module.get_parameter(self.modulation.table) if self.modulation.table else torch.zeros(())
        own = table.expand(len(names), channels) if table.ndim == 0 else table.reshape(len(names), channels)
        for index, name in enumerate(names):
            if name in values:
                parts[..., index, :] = values[name] - own[index]
        return parts.reshape(raw.shape)


@pytest.mark.parametrize(
    "family", [family for family in MODULATED if family.name != "hunyuan-dit"], ids=lambda family: family.name
)
def test_gates_close_a_block_and_a_scale_of_minus_one_hides_the_image_from_it(family: Family) -> None:
    pipe = family.build()
    generator = torch.Generator().manual_seed(5)
    for parameter in pipe.transformer.parameters():  # some begin with zeros
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    for stack in layout_for(pipe).stacks:
        block = Parts(family, pipe, stack)
        if block.layout.family in UNGATED:
            silence(block.module, UNGATED[block.layout.family])
        names = block.modulation.terms
        noise = torch.randn(block.image.shape, generator=generator)
        nothing = dict.fromkeys(names, 0.0)
        closed = nothing | {name: CLOSED.get(family.name, 0.0) for name in names if name.startswith("gate")}
        assert block.added(closed).abs().max() < 1e-5
        for part in ("msa", "mlp"):
            shift = {f"shift_{part}": 0.3} if f"shift_{part}" in names else {}
            open_ = {**closed, f"gate_{part}": 1.0, **shift}
            hidden = {**open_, f"scale_{part}": -1.0}
            assert (block.added(open_) - block.added(open_, noise)).abs().max() > 0.1
            assert (block.added(hidden) - block.added(hidden, noise)).abs().max() < 1e-5
            for name in shift:
                assert (block.added(open_) - block.added({**open_, name: -0.6})).abs().max() > 1e-2


def silence(block: torch.nn.Module, path: str) -> None:
    """What attention to the text adds becomes zero."""
    if getattr(block, path.split(".")[0], None) is None:
        return  # Latte's blocks along time have none
    for parameter in block.get_submodule(path).parameters():
        parameter.data.zero_()


@pytest.mark.parametrize("family", MODULATED, ids=lambda family: family.name)
def test_in_the_first_block_another_steps_modulation_is_that_steps_embedding(family: Family, tmp_path: Path) -> None:
    pipe = family.build()
    first = layout_for(pipe).block_paths(pipe.transformer)[0]
    chosen, encode = options(family, pipe, family.plain is None)
    store = record(
        pipe, prompts=["red apple"], seeds=[0], steps=2, experiment="timestep-swap", grid=[0, 1], mediate=[first], tier="full",
        encode=encode, out=tmp_path / "s.zarr", progress=False, **chosen,
    )  # fmt: skip
    found = open_recording(store)
    hidden = found["hidden"].sel(layer=first).transpose("timestep", ...).values
    cells = {
        (str(swap), int(step)): hidden[i]
        for i, (swap, step) in enumerate(zip(found["swap"].values, found["step"].values, strict=True))
    }
    for step in (0, 1):
        assert np.array_equal(cells["modulation", step], cells["embedding", step])
        assert not np.array_equal(cells["modulation", step], cells["none", step])
