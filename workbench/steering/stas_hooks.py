"""The hooks that make STAS out of a stock pipeline: one around the transformer, one on each chosen block."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from diffusers.hooks.hooks import ModelHook

from workbench.errors import UnsupportedModelError
from workbench.models.call import TransformerCall
from workbench.models.layout import Layout, Stack
from workbench.models.tokens import Tokens
from workbench.roles import roles_of_grid
from workbench.steering.root import Attached, TransformerHook
from workbench.steering.schedule import place
from workbench.steering.spec import StasSpec
from workbench.steering.stas import replaced, steered

Grid = tuple[int, int, int]


@dataclasses.dataclass
class StasAttachment(Attached):
    """What an attached spec of STAS has done so far.

    Attributes
    ----------
    spec : StasSpec
    calls : int
        Calls of the transformer by the pipeline: one a step and branch.
    steered_calls : int
        Those in which states were changed. There is no other call: STAS takes no pass of its own.
    changes : list of Tensor (B,)
        One a call and block that was changed: L2 norm over channels of the change, root mean square over all tokens, of each
        sample, in units of the hidden state. On the model's device, so that looking at them is what waits for it.
    reported : int
        How many of those `report` has told of.
    samples : int
        Samples in the last call.
    """

    spec: StasSpec
    steered_calls: int = 0
    changes: list[torch.Tensor] = dataclasses.field(default_factory=list)
    reported: int = 0
    samples: int = 0

    def report(self) -> dict[str, np.ndarray]:
        """``changed_norm`` of each sample since the last report, averaged over `changes`: of one call of the pipeline.

        0 if nothing was changed in it. Calls of another number of samples, before the last, are left out.
        """
        since, self.reported = self.changes[self.reported :], len(self.changes)
        norm = torch.stack(since).mean(dim=0).cpu().numpy() if since else np.zeros(self.samples)
        return {"changed_norm": norm.astype(np.float64)}


class Plan:
    """Which tokens of a grid get which alpha.

    Parameters
    ----------
    spec : StasSpec
    grid : tuple of int
        (F, H, W) of the present call.

    Raises
    ------
    SpecError
        If the spec's boundary width doesn't fit the grid.
    """

    def __init__(self, spec: StasSpec, grid: Grid) -> None:
        self.grid, self.tokens = grid, math.prod(grid)
        role_N = roles_of_grid(grid, spec.width_on(grid))
        alpha_N = np.full(self.tokens, np.nan)
        for role, alpha in spec.alphas.items():
            if alpha is not None:
                alpha_N[role_N == role] = alpha
        self.chosen_n = np.flatnonzero(~np.isnan(alpha_N))
        self.alpha_n = alpha_N[self.chosen_n]
        self._on: dict[tuple[torch.dtype, torch.device], tuple[torch.Tensor, torch.Tensor]] = {}

    def on(self, h_BNC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens and their alphas, (n,) each, where this state is and in its dtype."""
        key = (h_BNC.dtype, h_BNC.device)
        if key not in self._on:
            self._on[key] = (
                torch.from_numpy(self.chosen_n).to(h_BNC.device),
                torch.from_numpy(self.alpha_n).to(device=h_BNC.device, dtype=h_BNC.dtype),
            )
        return self._on[key]


class StasHook(TransformerHook):
    """Around the transformer: says whether this call is steered, and on which grid."""

    def __init__(self, attachment: StasAttachment, pipe: Any, layout: Layout) -> None:
        super().__init__(pipe, layout)
        self.attachment = attachment
        spec = attachment.spec
        blocks = layout.blocks(pipe.transformer)
        self.leaving = [LeavingHook(attachment, spec, blocks[layer][0]) for layer in spec.layers]
        self.plan: Plan | None = None

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run the pass that the pipeline asked for, with the hooks on the blocks at work or not."""
        forward: Any = self.fn_ref.original_forward  # type: ignore[attr-defined]
        if not self.enabled:
            return forward(*args, **kwargs)
        self.attachment.calls += 1
        self.refuse_cache()
        call = TransformerCall.bound(self.layout, module, args, kwargs)
        batched = self.guidance is not None and self.guidance.batched
        branches = self.branches() if batched else ("",)
        if self.attachment.samples != call.rows // len(branches):  # other videos than those of the calls before
            self.attachment.samples, self.attachment.reported = call.rows // len(branches), len(self.attachment.changes)
        if self.attachment.spec.idle:
            return forward(*args, **kwargs)
        self.refuse_others()
        # Before the window: a width that doesn't fit is to be told of at the first step, not at the first steered one.
        plan = self._plan(call.grid)
        due = self._due(call, branches if batched else (self.branch(call),))
        if not due:
            return forward(*args, **kwargs)
        try:
            for hook in self.leaving:
                hook.plan, hook.visits, hook.tokens, hook.due = plan, 0, call.tokens(hook.stack), due
            output = forward(*args, **kwargs)
        finally:
            for hook in self.leaving:
                hook.plan = None
        self._refuse_skipped()
        self.attachment.steered_calls += 1
        return output

    def _plan(self, grid: Grid) -> Plan:
        if self.plan is None or self.plan.grid != grid:
            self.plan = Plan(self.attachment.spec, grid)
        return self.plan

    def _due(self, call: TransformerCall, branches: tuple[str, ...]) -> list[slice]:
        """Rows of the batch that are steered in this call, one slice a branch; none if it is not due."""
        spec = self.attachment.spec
        size = call.rows // len(branches)
        rows = [slice(i * size, (i + 1) * size) for i, branch in enumerate(branches) if branch in spec.branches]
        # Looking the step up costs a copy from the device to the host.
        if not rows or spec.window.everywhere:
            return rows
        here = place(self.pipe.scheduler, call.timestep, self.layout.timestep)
        return rows if spec.window.contains(here.in_unit(spec.window.unit)) else []

    def _refuse_skipped(self) -> None:
        for layer, hook in zip(self.attachment.spec.layers, self.leaving, strict=True):
            if hook.visits != 1:
                raise UnsupportedModelError(
                    f"{layer} ran {hook.visits} times in one call of the transformer; something skips or repeats blocks (a "
                    "cache?), so the spec could not act there once. Disable it."
                )


class LeavingHook(ModelHook):
    """On a block: changes the state that leaves it, while `plan` is set."""

    def __init__(self, attachment: StasAttachment, spec: StasSpec, stack: Stack) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.enabled = True
        self.stack = stack
        self.tokens: Tokens
        self.due: list[slice] = []
        self.attachment = attachment
        self.spec = spec
        self.channels = torch.tensor(spec.channels)
        self.plan: Plan | None = None
        self.visits = 0

    def post_forward(self, module: torch.nn.Module, output: Any) -> Any:
        """Return the state with the massive channels of the chosen tokens replaced."""
        plan = self.plan
        if not self.enabled or plan is None:
            return output
        self.visits += 1
        index = self.stack.hidden_output
        state = output if index is None else output[index]
        image_BNC = self.tokens.read(state)
        changed = self.tokens.write(state, self._steered(image_BNC, plan))
        return changed if index is None else type(output)((*output[:index], changed, *output[index + 1 :]))

    def _steered(self, image_BNC: torch.Tensor, plan: Plan) -> torch.Tensor:
        tokens_n, alpha_n = plan.on(image_BNC)
        if self.channels.device != image_BNC.device:
            self.channels = self.channels.to(image_BNC.device)
        spec, size = self.spec, self.attachment.samples
        if len(image_BNC) == size * len(self.due):  # every row: the one copy that is made of the state holds the change
            part = image_BNC
        else:
            part = torch.cat([image_BNC[rows] for rows in self.due])
        before, after = steered(part, tokens_n, alpha_n, self.channels, action=spec.action, reference=spec.reference)
        self._note(before, after)
        new = replaced(part, tokens_n, self.channels, after)
        if part is image_BNC:
            return new
        whole = image_BNC.clone()
        for i, rows in enumerate(self.due):
            whole[rows] = new[i * size : (i + 1) * size]
        return whole

    def _note(self, before_BnK: torch.Tensor, after_BnK: torch.Tensor) -> None:
        """Keep how large the change was; in float32 at least, because squares of massive values leave float16's range."""
        assert self.plan is not None
        wide = torch.promote_types(before_BnK.dtype, torch.float32)
        norm_R = (after_BnK.to(wide) - before_BnK.to(wide)).detach().flatten(1).norm(dim=1)
        norm_B = norm_R.unflatten(0, (len(self.due), -1)).mean(dim=0)  # over the branches of a batch
        self.attachment.changes.append(norm_B / math.sqrt(self.plan.tokens))


__all__ = ["LeavingHook", "Plan", "StasAttachment", "StasHook"]
