"""What the hooks around a transformer share: who calls it, which branch that is, and that no cache is in the way."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from diffusers.hooks.hooks import BaseState, ModelHook, StateManager

from workbench.errors import UnsupportedModelError
from workbench.models import guidance_of
from workbench.models.call import TransformerCall
from workbench.models.layout import Layout
from workbench.steering.base import Spec
from workbench.steering.caller import branched, called_by


@dataclasses.dataclass
class Attached:
    """What an attached spec has done so far.

    Attributes
    ----------
    spec : Spec
    calls : int
        Calls of the transformer by the pipeline: one a step, or one a step and branch.
    """

    spec: Spec
    calls: int = 0


class CacheWatch(ModelHook):
    """Around the transformer: refuses caches."""

    def __init__(self, transformer: torch.nn.Module, layout: Layout) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.enabled = True
        # Not all modules: this is looked at in every call. Caches hook the blocks, or the transformer itself.
        self.watched = [transformer, *(block for _, block in layout.blocks(transformer).values())]

    def refuse_cache(self) -> None:
        """Caches were looked for when the spec was attached; here, for one that was enabled since."""
        registries = [module.__dict__.get("_diffusers_hook") for module in self.watched]
        hooks = [hook for registry in registries if registry is not None for hook in registry.hooks.values()]
        stateful = [type(hook).__name__ for hook in hooks if hook._is_stateful and hook is not self]
        if stateful or getattr(self.watched[0], "is_cache_enabled", False):
            raise UnsupportedModelError(
                f"a cache ({', '.join(stateful) or 'enable_cache'}) was enabled while a spec is applied; it skips what the "
                "spec changes, and takes an extra pass for another step. Leave the `with` block (or give the pipeline "
                "another guider) first, or disable the cache."
            )


class TransformerHook(CacheWatch):
    """Around the transformer: what each method's own hook can ask about a call."""

    def __init__(self, pipe: Any, layout: Layout) -> None:
        super().__init__(pipe.transformer, layout)
        self.pipe = pipe
        self.layout = layout
        self.guidance = guidance_of(pipe, layout)
        # A hook with a state is told the name that a pipeline gives to its call (`cache_context`). This one has no state
        # but that name, and needs it where each branch is a call of its own.
        self._is_stateful = self.guidance is not None and self.guidance.named
        self.context = StateManager(BaseState)  # type: ignore[no-untyped-call, arg-type]
        self.previous: torch.Tensor | None = None
        self.place = 0

    def reset_state(self, module: torch.nn.Module) -> torch.nn.Module:
        """Forget the name of the call; the pipeline asks for that when it is done."""
        self.context.reset()  # type: ignore[no-untyped-call]
        return module

    def refuse_others(self) -> None:
        """What rows and guidance scale mean is the pipeline's word, which it keeps after its call; no one else may use it."""
        if not called_by(self.pipe):
            raise UnsupportedModelError(
                "the transformer was called while a spec is applied, but not by its pipeline, which alone says what "
                "the rows of the batch are. Call the pipeline, or leave the `with` block first."
            )

    def branches(self) -> tuple[str, ...]:
        """Branches of a step, in the order of the batch's rows or of the calls."""
        guidance = self.guidance
        return guidance.rows if guidance is not None and branched(self.pipe, guidance) else ("cond",)

    def branch(self, call: TransformerCall) -> str:
        """Name of the branch that this call is, where each branch is a call of its own; to be asked once a call."""
        guidance, branches = self.guidance, self.branches()
        if guidance is None or len(branches) == 1:
            return "cond"
        if not guidance.named:
            same = self.previous is not None and torch.equal(self.previous, call.timestep)
            self.place = (self.place + 1) % len(branches) if same else 0
            self.previous = call.timestep.clone()
            return branches[self.place]
        context = self.context._context  # its property raises where no context is open
        name = None if context is None else context.name
        if name not in guidance.rows:
            raise UnsupportedModelError(
                f"{type(self.pipe).__name__} called its transformer in the context {name!r}, which is none of "
                f"{guidance.rows}; which branch this is can't be told."
            )
        return str(name)
