"""The degraded pass without what it shares with the conditional pass.

Only what depends on the edit at block m differs between the two passes. So nothing that ran before block m is run again,
nor the projections of the timestep embedding in the blocks after it. Nothing of a model's forward is copied: it runs once
more, for the rows of the conditional branch, while hooks answer at once with what the conditional pass left there.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from diffusers.hooks.hooks import ModelHook
from diffusers.models import normalization

from workbench.models.call import TransformerCall, take
from workbench.models.layout import Layout, Stack
from workbench.models.tokens import Tokens
from workbench.steering.edits import edit_channels

Args = tuple[Any, ...]
Kwargs = dict[str, Any]

ADAPTIVE = (
    normalization.AdaLayerNorm,
    normalization.AdaLayerNormContinuous,
    normalization.AdaLayerNormZero,
    normalization.AdaLayerNormZeroSingle,
    normalization.SD35AdaLayerNormZeroX,
)
"""Norms whose ``linear`` is given the embedding alone, so that its output can't depend on an edited state."""


class Shared:
    """What the conditional pass leaves for the degraded one; between two calls of the transformer, nothing.

    Attributes
    ----------
    rows, batch
        While keeping: the conditional branch is `rows` of `batch` rows.
    before_edit : bool
        While keeping: block m was not entered yet.
    replaying : bool
        The degraded pass is running.
    kept : dict
        Name of a shared part → its output for `rows`.
    """

    rows: slice | None
    batch: int
    before_edit: bool
    replaying: bool
    kept: dict[str, Any]

    def __init__(self) -> None:
        self.clear()

    def keep(self, rows: slice, batch: int) -> None:
        """Begin the conditional pass."""
        self.clear()
        self.rows, self.batch, self.before_edit = rows, batch, True

    def replay(self) -> None:
        """Begin the degraded pass."""
        self.rows, self.replaying = None, True

    def clear(self) -> None:
        """Let go of everything."""
        self.rows, self.batch, self.before_edit, self.replaying, self.kept = None, 0, False, False, {}

    def store(self, name: str, output: Any) -> None:
        """Keep `rows` of an output, if a conditional pass is under way.

        Copied, so that the other branch's rows needn't be held, and nothing that follows can change them.
        """
        if self.rows is not None:
            self.kept[name] = copied(take(output, self.rows, self.batch))


class BlockHook(ModelHook):
    """On a block before m: does not run in the degraded pass.

    Every such block answers with what the *last* block before m of its stack left in the conditional pass, whatever it is
    given. What the model does after a block or between two stacks (adds a residual of a ControlNet, joins text and image)
    it then does again, from the same values, and as the last block of a stack is the one that counts, block m is given
    what it was given before.

    That holds for models whose blocks hand on all they know. One whose later blocks also read the outputs of single
    earlier ones (long skip connections, as of HunyuanDiT) must not get a row in `check.PIPELINES`.
    """

    def __init__(self, shared: Shared, stack: str, *, last: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.enabled = True
        self.shared = shared
        self.stack = stack
        self.last = last

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run the block, or not."""
        if self.enabled and self.shared.replaying:
            return self.shared.kept[self.stack]
        output = self.fn_ref.original_forward(*args, **kwargs)  # type: ignore[attr-defined]
        if self.enabled and self.last:
            self.shared.store(self.stack, output)
        return output


class EmbeddingHook(ModelHook):
    """On a module that is not a block: its output in the conditional pass serves the degraded pass too.

    Either it runs before block m (the embeddings; `always` is False, and what runs later is left alone), or what it is
    given can't depend on the edit (projections of the embedding; `always` is True). Besides saving time, this keeps the
    two passes equal in every bit: a CPU multiplies a matrix with fewer than four rows by another kernel, so the embedding
    of one image alone is rounded otherwise than that of the same image in a batch of two branches.
    """

    def __init__(self, shared: Shared, name: str, *, always: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.enabled = True
        self.shared = shared
        self.name = name
        self.always = always

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run the module, or not."""
        shared = self.shared
        if self.enabled and shared.replaying and self.name in shared.kept:
            # Once: a second call in the same pass is another call, and runs.
            return shared.kept.pop(self.name)
        output = self.fn_ref.original_forward(*args, **kwargs)  # type: ignore[attr-defined]
        if self.enabled and (self.always or shared.before_edit) and self.name not in shared.kept:
            shared.store(self.name, output)
        return output


class EditHook(ModelHook):
    """On block m: edits the channels of the image tokens in the state that enters the block, while `active`.

    Parameters
    ----------
    block : Module
        Block m.
    stack : Stack
        That it belongs to.
    channels : tuple of int
    action : str
        As in `edit_channels`.
    shared : Shared, optional
        Is told when block m is entered.
    """

    def __init__(
        self,
        block: torch.nn.Module,
        stack: Stack,
        channels: tuple[int, ...],
        action: str,
        *,
        shared: Shared | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.enabled = True
        self.active = False
        self.rho = 0.0
        self.tokens: Tokens
        """Where the image tokens of the present call are."""
        self.argument = stack.argument
        self.position = list(inspect.signature(type(block).forward).parameters).index(stack.argument) - 1  # self
        self.channels = channels
        self.action = action
        self.shared = shared

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[Args, Kwargs]:  # noqa: D102
        if self.shared is not None:
            self.shared.before_edit = False
        if not (self.active and self.enabled):
            return args, kwargs
        if self.argument in kwargs:
            return args, kwargs | {self.argument: self._edited(kwargs[self.argument])}
        edited = self._edited(args[self.position])
        return (*args[: self.position], edited, *args[self.position + 1 :]), kwargs

    def _edited(self, state: torch.Tensor) -> torch.Tensor:
        image_BNC = self.tokens.read(state, entering=True)
        edited = edit_channels(image_BNC, self.channels, self.action, rho=self.rho)
        return self.tokens.write(state, edited, entering=True)


Hook = BlockHook | EditHook | EmbeddingHook


class Degraded:
    """The hooks of the degraded pass, and the two passes with them.

    Parameters
    ----------
    transformer : Module
    layout : Layout
    layer : str
        Full path of block m.
    channels : tuple of int
    action : str

    Attributes
    ----------
    hooks : list of (Module, ModelHook)
        To be registered on these modules before `passes` is called.
    """

    def __init__(
        self, transformer: torch.nn.Module, layout: Layout, layer: str, channels: tuple[int, ...], action: str
    ) -> None:
        blocks = layout.blocks(transformer)
        before = list(blocks)[: list(blocks).index(layer)]
        stack, block = blocks[layer]
        shared = self.shared = Shared()
        self.layout, self.transformer, self.stack = layout, transformer, stack
        self.edit = EditHook(block, stack, channels, action, shared=shared)
        last = {blocks[path][0].path: path for path in before}  # of each stack, the last of them
        hooks: list[tuple[torch.nn.Module, Hook]] = [(block, self.edit)]
        if not layout.handed_on:  # then the degraded pass is a whole one
            self.hooks = hooks
            return
        for path in before:
            stack, block = blocks[path]
            hooks.append((block, BlockHook(shared, stack.path, last=last[stack.path] == path)))
        lists = {stack.path for stack in layout.stacks}
        hooks += [
            (module, EmbeddingHook(shared, name, always=False))
            for name, module in transformer.named_children()
            if name not in lists and not isinstance(module, torch.nn.ModuleList) and not isinstance(module, ADAPTIVE)
        ]
        skipped = tuple(f"{path}." for path in before)
        hooks += [
            (module.linear, EmbeddingHook(shared, f"{name}.linear", always=True))
            for name, module in transformer.named_modules()
            if isinstance(module, ADAPTIVE) and not name.startswith(skipped)
        ]
        self.hooks = hooks

    def passes(
        self, forward: Any, args: Args, kwargs: Kwargs, call: TransformerCall, *, rows: slice, rho: float
    ) -> tuple[Any, Any]:
        """Run the pass that was asked for, then the degraded one.

        Parameters
        ----------
        forward : callable
            The transformer's forward, and its arguments.
        args, kwargs
        call : TransformerCall
            The same call, by name.
        rows : slice
            Rows of the conditional branch.
        rho : float
            Retention, for the action ``"scale"``.

        Returns
        -------
        output, degraded
            What `forward` returned for all rows, and for `rows` with the channels edited.
        """
        # Cut out the rows before the first pass: that one may change what is in the arguments.
        cond = call.only(rows)
        output = self.first(forward, args, kwargs, rows=rows, batch=call.rows)
        return output, self.second(forward, (), cond.arguments, cond, rho=rho)

    def first(self, forward: Any, args: Args, kwargs: Kwargs, *, rows: slice, batch: int) -> Any:
        """Run the pass that holds the conditional branch in `rows`, and keep what `second` needs of it."""
        self.shared.keep(rows, batch)
        try:
            return forward(*args, **kwargs)
        except BaseException:
            self.shared.clear()
            raise
        finally:
            self.shared.rows = None

    def second(self, forward: Any, args: Args, kwargs: Any, call: TransformerCall, *, rho: float) -> Any:
        """Run the degraded pass, after `first`; `call` is the same call as the arguments."""
        shared, edit = self.shared, self.edit
        try:
            edit.active, edit.rho, edit.tokens = True, rho, call.tokens(self.stack)
            shared.replay()
            return forward(*args, **kwargs)
        finally:
            edit.active = False
            shared.clear()


def copied(value: Any) -> Any:
    """Copy the tensors of a block's output: one, or a tuple with None where a stream has ended."""
    if isinstance(value, (list, tuple)):
        return type(value)(copied(item) for item in value)
    return value.clone() if isinstance(value, torch.Tensor) else value


__all__ = ["Degraded", "EditHook", "Hook", "Shared"]
