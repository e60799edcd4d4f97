"""The hooks that make STAS out of a stock pipeline: one around the transformer, one on each chosen block."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from diffusers.hooks.hooks import ModelHook

from workbench.errors import UnsupportedModelError
from workbench.models.layout import Layout
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
        self.leaving = [LeavingHook(attachment, spec) for _ in spec.layers]
        self.plan: Plan | None = None

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run the pass that the pipeline asked for, with the hooks on the blocks at work or not."""
        forward: Any = self.fn_ref.original_forward  # type: ignore[attr-defined]
        if not self.enabled:
            return forward(*args, **kwargs)
        self.attachment.calls += 1
        self.refuse_cache()
        arguments = self.signature.bind(module, *args, **kwargs).arguments
        latents = arguments[self.layout.hidden_argument]
        if self.attachment.samples != latents.shape[0]:  # other videos than those of the calls before
            self.attachment.samples, self.attachment.reported = latents.shape[0], len(self.attachment.changes)
        if self.attachment.spec.idle:
            return forward(*args, **kwargs)
        self.refuse_others()
        # Before the window: a width that doesn't fit is to be told of at the first step, not at the first steered one.
        plan = self._plan(self.layout.grid(module, tuple(latents.shape)))
        if not self._is_due(arguments["timestep"]):
            return forward(*args, **kwargs)
        try:
            for hook in self.leaving:
                hook.plan, hook.visits = plan, 0
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

    def _is_due(self, timestep: Any) -> bool:
        spec = self.attachment.spec
        if self.branch() not in spec.branches:
            return False
        # Looking the step up costs a copy from the device to the host.
        return spec.window.everywhere or spec.window.contains(
            place(self.pipe.scheduler, timestep).in_unit(spec.window.unit)
        )

    def _refuse_skipped(self) -> None:
        for layer, hook in zip(self.attachment.spec.layers, self.leaving, strict=True):
            if hook.visits != 1:
                raise UnsupportedModelError(
                    f"{layer} ran {hook.visits} times in one call of the transformer; something skips or repeats blocks (a "
                    "cache?), so the spec could not act there once. Disable it."
                )


class LeavingHook(ModelHook):
    """On a block: changes the state that leaves it, while `plan` is set."""

    def __init__(self, attachment: StasAttachment, spec: StasSpec) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.enabled = True
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
        if not isinstance(output, torch.Tensor) or output.ndim != 3 or output.shape[1] != plan.tokens:
            found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise UnsupportedModelError(
                f"{type(module).__name__} returned {found}, not a state of {plan.tokens} tokens (grid {plan.grid}); which "
                "token is which can't be told."
            )
        tokens_n, alpha_n = plan.on(output)
        if self.channels.device != output.device:
            self.channels = self.channels.to(output.device)
        spec = self.spec
        before, after = steered(output, tokens_n, alpha_n, self.channels, action=spec.action, reference=spec.reference)
        self._note(before, after)
        return replaced(output, tokens_n, self.channels, after)

    def _note(self, before_BnK: torch.Tensor, after_BnK: torch.Tensor) -> None:
        """Keep how large the change was; in float32 at least, because squares of massive values leave float16's range."""
        assert self.plan is not None
        wide = torch.promote_types(before_BnK.dtype, torch.float32)
        norm_B = (after_BnK.to(wide) - before_BnK.to(wide)).detach().flatten(1).norm(dim=1)
        self.attachment.changes.append(norm_B / math.sqrt(self.plan.tokens))


__all__ = ["LeavingHook", "Plan", "StasAttachment", "StasHook"]
