"""The parts of a modulation are what the rows of the joint families call them: set by name, they do in a block what they should."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tests.families.base import Arguments, Family
from tests.families.check import generate
from workbench.models import layout_for
from workbench.models.call import TransformerCall
from workbench.models.layout import Modulation, Stack

MODULES = (
    "joint_sd3",
    "joint_flux",
    "joint_flux2",
    "joint_qwen",
    "joint_cog",
    "joint_other",
    "joint_bria",
    "joint_joy",
)
#: In AuraFlow the attention goes through a norm and the feed-forward before it reaches the stream.
AURAFLOW = "auraflow"
KNOWN: tuple[Family, ...] = tuple(
    family for name in MODULES for family in importlib.import_module(f"tests.families.{name}").FAMILIES
)


class Block:
    """The first block of a stack with the arguments of a real call, run with parts of its modulation set."""

    def __init__(self, family: Family, pipe: Any, stack: Stack) -> None:
        self.family, self.stack = family, stack
        self.layout = layout_for(pipe)
        self.module = pipe.transformer.get_submodule(f"{stack.path}.0")
        self.modulation: Modulation = self.layout.modulation_of(stack)
        self.call, self.arguments = self._seen(pipe)
        self.tokens = self.call.tokens(stack)
        self.image = self.tokens.read(self.arguments[stack.argument], entering=True)

    def _seen(self, pipe: Any) -> tuple[TransformerCall, Arguments]:
        seen: list[Any] = []

        def on_call(net: Any, args: Any, kwargs: Any) -> None:
            seen[:] = [TransformerCall.bound(self.layout, net, args, kwargs)]

        def on_block(module: Any, args: Any, kwargs: Any) -> None:
            seen[1:] = [inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments]

        handles = [
            pipe.transformer.register_forward_pre_hook(on_call, with_kwargs=True),
            self.module.register_forward_pre_hook(on_block, with_kwargs=True),
        ]
        guidance = self.family.plain if self.family.plain is not None else self.family.guided
        with torch.no_grad():
            generate(self.family, pipe, self.family.calls[0], guidance or {}, steps=2)
        for handle in handles:
            handle.remove()
        return seen[0], {name: value for name, value in seen[1].items() if name != "self"}

    def added(self, values: Mapping[str, float], noise: torch.Tensor | float = 0.0) -> torch.Tensor:
        """What the block adds to the image tokens (with `noise` on them) when those parts have those values."""
        image = self.image + noise
        arguments = {
            **self.arguments,
            self.stack.argument: self.tokens.write(self.arguments[self.stack.argument], image, entering=True),
        }
        name, handle = self.modulation.argument, None
        if name:
            arguments[name] = self._set(arguments[name], values)
        else:
            projection = self.module.get_submodule(self.modulation.module)
            handle = projection.register_forward_hook(lambda module, args, output: self._set(output, values))
        with torch.no_grad():
            output = self.module(**arguments)
        if handle is not None:
            handle.remove()
        return self.family.image[self.stack.path](output, dict(self.call.arguments)) - image

    def _set(self, raw: torch.Tensor, values: Mapping[str, float]) -> torch.Tensor:
        channels, new = self.image.shape[-1], raw.clone()
        names = (*self.modulation.terms, *self.modulation.beyond)
        own_axis = raw.ndim > 2 and raw.shape[-1] == channels
        for index, name in enumerate(names):
            if name in values and own_axis:
                new[:, index] = values[name]
                if self.modulation.table:
                    new[:, index] -= self.module.get_parameter(self.modulation.table).reshape(-1, channels)[index]
            elif name in values:
                new[..., index * channels : (index + 1) * channels] = values[name]
        return new


@pytest.mark.parametrize("family", KNOWN, ids=lambda family: family.name)
def test_gates_of_zero_close_a_block_and_a_scale_of_minus_one_hides_the_image_from_it(family: Family) -> None:
    pipe = family.build()
    generator = torch.Generator().manual_seed(5)
    for parameter in pipe.transformer.parameters():  # some begin with zeros
        if parameter.ndim > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    for stack in layout_for(pipe).stacks:
        if layout_for(pipe).modulation_of(stack).kind == "none":
            continue
        block = Block(family, pipe, stack)
        names = (*block.modulation.terms, *block.modulation.beyond)
        closed = {name: 0.0 for name in names if name.startswith("gate")}
        assert block.added({}).abs().max() > 0.1
        assert block.added(closed).abs().max() < 1e-5
        noise = torch.randn(block.image.shape, generator=generator)
        for part in ("mlp",) if layout_for(pipe).family == AURAFLOW else ("msa", "mlp"):
            if f"scale_{part}" not in names:
                continue
            shift = {f"shift_{part}": 0.3} if f"shift_{part}" in names else {}
            open_ = {**closed, f"gate_{part}": 1.0, f"scale_{part}": 0.0, **shift}
            hidden = {**open_, f"scale_{part}": -1.0}
            assert (block.added(open_) - block.added(open_, noise)).abs().max() > 0.1
            assert (block.added(hidden) - block.added(hidden, noise)).abs().max() < 1e-5
            for name in shift:
                assert (block.added(hidden) - block.added({**hidden, name: -0.6})).abs().max() > 0.1
