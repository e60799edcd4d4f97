"""Disrupt a hidden state in a pipeline's own passes: massive channels, or what they are compared with.

Paper A (Gan et al., arXiv 2510.11538) sets the massive channels to zero at a single layer and lets the change propagate;
paper C (Turri et al., arXiv 2605.13974) compares with as many low channels. Neither control removes as much as the massive
channels do, so two more are here that do: many ordinary channels shrunk, and noise in all of them, both by the norm that the
massive channels have in the recording at that step. Not by what they have in the disrupted state itself: a control that
harms the pictures also changes how large the massive channels are.

Shapes: B rows of the batch, N image tokens, C channels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from workbench.errors import SpecError, UnsupportedModelError
from workbench.models import guidance_of, layout_for
from workbench.models.call import TransformerCall
from workbench.models.layout import Layout
from workbench.models.tokens import Tokens
from workbench.steering.caller import branched
from workbench.steering.control_channels import KINDS
from workbench.steering.edits import edit_channels
from workbench.steering.schedule import place

METHOD_VERSION = 2
"""Raised whenever the same fields come to mean something else, or `removed_norm` does; part of every identity.

2: the controls have the norm that the massive channels have in the recording, and `removed_norm` is what was really
changed; image tokens only, also where text stands before them."""

EVERYWHERE = (0.0, 1.0)
ROUNDING = 1e-6

Branches = Literal["all", "cond", "uncond"]

Norms = tuple[tuple[str, tuple[tuple[float, float], ...]], ...]
"""Branch → (noise level, L2 norm per token) of the recorded steps, ascending in noise; linear in between."""

MATCHED = ("matched_random", "noise", "shift")
"""Kinds that change a state by a norm that is given."""


class Disturbed(NamedTuple):
    """One visit that was disrupted.

    Attributes
    ----------
    sigma : float
        Noise level of the step, in [0, 1]; NaN where the window is all of the trajectory and was not looked up.
    norm : tuple of float
        L2 norm over channels of what was taken away or added, root mean square over tokens, mean over the changed
        branches; per sample.
    """

    sigma: float
    norm: tuple[float, ...]


@dataclasses.dataclass
class Attached:
    """What a disruption has done so far.

    Attributes
    ----------
    calls : int
        Calls of the transformer.
    open_calls : int
        Those in the window.
    visits : list of Disturbed
        One per visit of the block in the window.
    reported : int
        How many visits `report` has told of.
    samples : int
        Samples in the last call.
    """

    calls: int = 0
    open_calls: int = 0
    visits: list[Disturbed] = dataclasses.field(default_factory=list)
    reported: int = 0
    samples: int = 0

    @property
    def norm(self) -> float:
        """Mean over visits and samples of the norm that was taken away or added; NaN without a visit."""
        return float(np.mean([value for visit in self.visits for value in visit.norm])) if self.visits else float("nan")

    def report(self) -> dict[str, np.ndarray]:
        """``removed_norm`` of each sample since the last report, averaged over visits: of one pipeline call.

        NaN if no step of it was in the window.
        """
        since, self.reported = self.visits[self.reported :], len(self.visits)
        norms = [visit.norm for visit in since]
        return {"removed_norm": np.mean(norms, axis=0) if norms else np.full(self.samples, np.nan)}


@dataclasses.dataclass(frozen=True)
class Disruption:
    """One intervention on the image-token state that enters one block.

    Attributes
    ----------
    layer : str
        Full module path of block m; the state that *enters* it is changed, as in paper A.
    kind : str
        ``massive``, ``random``, ``low``: `channels` are set to zero. ``matched_random``: they are shrunk, on each token by
        the norm in `norms`, or to zero where they hold less. ``noise``, ``shift``: into the channels `into` goes a random
        vector of that norm (without `norms`, of the norm that `channels` have on the token); another direction on every
        token, or the same on all. The direction depends on `seed` alone, so it is the same at every step, in every row and
        batch, as the massive channels are.
    channels : tuple of int
        Ascending, at least one.
    into : tuple of int
        Of ``noise`` and ``shift`` only.
    window : tuple of float
        (low, high) in sigma: steps with low < sigma <= high, and with low = 0 also sigma = 0.
    branches : {"all", "cond", "uncond"}
        Rows of the batch that are changed. Which the paper changes is not established; ``all`` is the whole model.
    seed : int
        Of the noise.
    norms : tuple
        Of the kinds in `MATCHED`: see `Norms`.
    """

    layer: str
    kind: str
    channels: tuple[int, ...]
    into: tuple[int, ...] = ()
    window: tuple[float, float] = EVERYWHERE
    branches: Branches = "all"
    seed: int = 0
    norms: Norms = ()

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        if self.kind not in (*KINDS, "shift"):
            raise SpecError(f"kind {self.kind!r} is unknown; choose one of {', '.join((*KINDS, 'shift'))}.")
        if not self.channels:
            raise SpecError(f"no channel is left for kind {self.kind!r} at {self.layer}; name at least one channel.")
        if bool(self.into) != (self.kind in ("noise", "shift")):
            raise SpecError(f"`into` names the channels that noise goes into; kind {self.kind!r} has {len(self.into)}.")
        if self.norms and self.kind not in MATCHED:
            raise SpecError(f"kind {self.kind!r} sets channels to zero, whatever their norm; `norms` is for {MATCHED}.")
        low, high = self.window
        if not 0 <= low < high <= 1:
            raise SpecError(f"the window ({low:g}, {high:g}) is empty or outside 0 to 1; give low < high, in sigma.")
        if self.branches not in ("all", "cond", "uncond"):
            raise SpecError(f"branches {self.branches!r} are unknown; choose all, cond or uncond.")

    def contains(self, sigma: float) -> bool:
        """Tell whether a step at this noise level is in the window."""
        low, high = self.window
        return low + ROUNDING < sigma <= high + ROUNDING or (low == 0 and sigma <= ROUNDING)

    def identity(self) -> dict[str, Any]:
        """All fields as JSON can hold them, and `METHOD_VERSION`: decides whether a stored result is of this disruption."""
        plain: dict[str, Any] = json.loads(json.dumps({"method_version": METHOD_VERSION, **dataclasses.asdict(self)}))
        return plain

    def norm_at(self, branch: str, sigma: float) -> float:
        """L2 norm per token of `norms` for a branch (the mean of all, where it is not known) at a noise level."""
        known = {name: np.asarray(knots) for name, knots in self.norms}
        each = [known[branch]] if branch in known else list(known.values())
        return float(np.mean([np.interp(sigma, knots[:, 0], knots[:, 1]) for knots in each]))

    @contextlib.contextmanager
    def apply(self, pipe: Any) -> Iterator[Attached]:
        """Disrupt every call of the pipeline inside the ``with`` block; afterwards the pipeline is as it was.

        Steps outside the window run exactly what the pipeline runs alone: the same bits.

        Raises
        ------
        SpecError
            If the model has no such layer or channel.
        UnsupportedModelError
            If single branches are asked of a pipeline that does not hold them in one batch, the noise level of a step
            can't be told, or a block in the window was skipped, as caches do.
        """
        layout = layout_for(pipe)
        transformer = pipe.transformer
        paths = layout.block_paths(transformer)
        if self.layer not in paths:
            raise SpecError(
                f"the model has no block {self.layer!r}; its blocks are {paths[0]} … {paths[-1]} ({len(paths)} of them)."
            )
        width, named = layout.width_of(transformer), (*self.channels, *self.into)
        if min(named) < 0 or max(named) >= width:
            raise SpecError(f"the model has channels 0 to {width - 1}, not all of those named (up to {max(named)}).")
        guidance = guidance_of(pipe, layout)
        if self.branches != "all" and (guidance is None or not guidance.batched):
            raise UnsupportedModelError(
                f"{type(pipe).__name__} runs its branches in separate calls; only branches='all' can be disrupted there."
            )
        running = _Running(self, pipe, layout)
        handles = [
            transformer.register_forward_pre_hook(running.enter, with_kwargs=True),
            transformer.get_submodule(self.layer).register_forward_pre_hook(running.change, with_kwargs=True),
        ]
        try:
            yield running.attached
        finally:
            for handle in handles:
                handle.remove()
        seen = running.attached
        if len(seen.visits) != seen.open_calls:
            raise UnsupportedModelError(
                f"{self.layer} ran {len(seen.visits)} times in {seen.open_calls} calls of the transformer; something "
                "skips or repeats blocks (a cache?), so this was no disruption of every step. Disable it."
            )


class _Running:
    """The two hooks of one attachment."""

    def __init__(self, what: Disruption, pipe: Any, layout: Layout) -> None:
        self.what, self.pipe, self.layout, self.attached = what, pipe, layout, Attached()
        stack, block = layout.blocks(pipe.transformer)[what.layer]
        self.stack = stack
        self.tokens: Tokens
        self.guidance = guidance_of(pipe, layout)
        self.position = list(inspect.signature(type(block).forward).parameters).index(stack.argument) - 1
        self.open, self.sigma = False, float("nan")
        self.rows: slice = slice(None)
        self.names: tuple[str, ...] = ("",)
        self.direction: torch.Tensor | None = None

    def enter(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before the transformer: tell whether this step is in the window, and which rows are meant."""
        call = TransformerCall.bound(self.layout, module, args, kwargs)
        self.open = True
        if self.what.window != EVERYWHERE or self.what.norms:
            self.sigma = place(self.pipe.scheduler, call.timestep, self.layout.timestep).sigma
        if self.what.window != EVERYWHERE:
            self.open = self.what.contains(self.sigma)
        self.attached.calls += 1
        self.attached.open_calls += self.open
        batch, self.tokens = call.rows, call.tokens(self.stack)
        names = self.guidance.rows if self.guidance is not None and self._batched() else ("cond",)
        if batch % len(names) or self.what.branches not in ("all", *names):
            raise UnsupportedModelError(
                f"a batch of {batch} rows can't be told apart, or has no branch {self.what.branches!r} (there is "
                f"{', '.join(names)}); use branches='all', or guidance above 1."
            )
        size = self.attached.samples = batch // len(names)
        self.names = names if self._batched() or self.what.branches != "all" else ("",)
        if self.what.branches != "all":
            start = names.index(self.what.branches) * size
            self.rows = slice(start, start + size)

    def _batched(self) -> bool:
        """Whether the rows of a call are several branches of each sample."""
        return self.guidance is not None and self.guidance.batched and branched(self.pipe, self.guidance)

    def change(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before block m: change the image-token state."""
        if not self.open:
            return None
        name = self.stack.argument
        state = kwargs[name] if name in kwargs else args[self.position]
        out_BNC = self.tokens.read(state, entering=True).clone()
        part = out_BNC[self.rows]
        # In float32 at least: squares of massive values leave float16's range.
        norm_BN = part[..., list(self.what.channels)].to(torch.promote_types(part.dtype, torch.float32)).norm(dim=-1)
        planned_BN = self._planned(norm_BN) if self.what.norms else norm_BN
        changed = part.clone()
        if self.what.kind in ("noise", "shift"):
            into, norm_BN = list(self.what.into), planned_BN
            changed[..., into] += (norm_BN[..., None] * self._direction(part)).to(part.dtype)
        elif self.what.kind == "matched_random":
            picked, held_BN = list(self.what.channels), norm_BN
            norm_BN = torch.minimum(planned_BN, held_BN)
            left_BN = torch.where(held_BN > 0, 1 - norm_BN / held_BN, 0.0)
            changed[..., picked] = (part[..., picked] * left_BN[..., None]).to(part.dtype)
        else:
            changed = edit_channels(part, self.what.channels, "zero")
        out_BNC[self.rows] = changed
        out = self.tokens.write(state, out_BNC, entering=True)
        per_sample = norm_BN.square().mean(dim=-1).sqrt().reshape(-1, self.attached.samples).mean(dim=0)
        self.attached.visits.append(Disturbed(self.sigma, tuple(per_sample.tolist())))
        if name in kwargs:
            return args, kwargs | {name: out}
        return (*args[: self.position], out, *args[self.position + 1 :]), kwargs

    def _planned(self, like_BN: torch.Tensor) -> torch.Tensor:
        """The norm of `norms` at this step, for the branch of every row; shape (B, N)."""
        named = self.names if self.what.branches == "all" else (self.what.branches,)
        each = torch.tensor([self.what.norm_at(name, self.sigma) for name in named], device=like_BN.device)
        return each.to(like_BN.dtype).repeat_interleave(len(like_BN) // len(named))[:, None].expand_as(like_BN)

    def _direction(self, part: torch.Tensor) -> torch.Tensor:
        """Unit vectors (N or 1, len(into)) in float32; drawn on the CPU, so that every device gets the same."""
        tokens = 1 if self.what.kind == "shift" else part.shape[-2]
        if self.direction is None or self.direction.shape[0] != tokens:
            generator = torch.Generator("cpu").manual_seed(self.what.seed)
            drawn = torch.randn(tokens, len(self.what.into), generator=generator)
            self.direction = (drawn / drawn.norm(dim=-1, keepdim=True)).to(part.device)
        return self.direction


__all__ = ["EVERYWHERE", "MATCHED", "Attached", "Branches", "Disruption", "Disturbed", "Norms"]
