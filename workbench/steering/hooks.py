"""The hook around the transformer that makes Detail Guidance out of a stock pipeline; `attach` puts it on and off."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import torch
from diffusers.hooks.hooks import BaseState, ModelHook, StateManager

from workbench.errors import UnsupportedModelError
from workbench.models.layout import Layout
from workbench.steering.caller import called_by
from workbench.steering.detail_guidance import shifted_cond
from workbench.steering.partial import Degraded
from workbench.steering.schedule import place
from workbench.steering.spec import DetailGuidanceSpec


@dataclasses.dataclass
class Attachment:
    """What an attached spec has done so far.

    Attributes
    ----------
    spec : DetailGuidanceSpec
    calls : int
        Calls of the transformer by the pipeline: one a step, or one a step and branch.
    degraded_passes : int
        Degraded passes that were run for the guidance: one for each step at which the spec acts.
    """

    spec: DetailGuidanceSpec
    calls: int = 0
    degraded_passes: int = 0


class RootHook(ModelHook):
    """Around the transformer: the pass that the pipeline asked for, and the degraded one where it is due."""

    def __init__(self, attachment: Attachment, pipe: Any, layout: Layout, degraded: Degraded) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.enabled = True
        self.attachment = attachment
        self.pipe = pipe
        self.layout = layout
        self.degraded = degraded
        # A hook with a state is told the name that a pipeline gives to its call (`cache_context`). This one has no state
        # but that name, and needs it where each branch is a call of its own.
        self._is_stateful = not layout.guidance.batched
        self.context = StateManager(BaseState)  # type: ignore[no-untyped-call, arg-type]
        # Not all modules: this is looked at in every call. Caches hook the blocks, or the transformer itself.
        self.watched = [pipe.transformer, *(block for _, block in layout.blocks(pipe.transformer).values())]
        self.signature = inspect.signature(type(pipe.transformer).forward)

    def reset_state(self, module: torch.nn.Module) -> torch.nn.Module:
        """Forget the name of the call; the pipeline asks for that when it is done."""
        self.context.reset()  # type: ignore[no-untyped-call]
        return module

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Return the pipeline's output with ``c' = c + (w / g)(c - d)`` in the rows of the conditional branch."""
        forward: Any = self.fn_ref.original_forward  # type: ignore[attr-defined]
        if not self.enabled:
            return forward(*args, **kwargs)
        self.attachment.calls += 1
        self._refuse_cache()
        if self.attachment.spec.idle:
            return forward(*args, **kwargs)
        arguments = self.signature.bind(module, *args, **kwargs).arguments
        latents = arguments[self.layout.hidden_argument]
        self._refuse_others()
        weight, rho = self._strength(arguments["timestep"]) if self._is_cond() else (0.0, 0.0)
        if weight == 0 or rho == 1:
            return forward(*args, **kwargs)
        if arguments.get("skip_layers") is not None:
            raise UnsupportedModelError(
                "the pipeline was called with skip_guidance_layers; its skip-layer guidance uses the conditional "
                "prediction a second time, so the two can't be combined exactly. Leave one of them out."
            )
        rows, gain = self._cond_rows(latents.shape[0])
        tokens = math.prod(self.layout.grid(module, tuple(latents.shape)))
        output, degraded = self.degraded.passes(
            forward, args, kwargs, rows=rows, batch=latents.shape[0], rho=rho, tokens=tokens
        )
        self.attachment.degraded_passes += 1
        prediction = _prediction(output).clone()
        prediction[rows] = shifted_cond(prediction[rows], _prediction(degraded), weight, gain)
        return _with_prediction(output, prediction)

    def _refuse_cache(self) -> None:
        """Caches were looked for when the spec was attached; here, for one that was enabled since."""
        registries = [module.__dict__.get("_diffusers_hook") for module in self.watched]
        hooks = [hook for registry in registries if registry is not None for hook in registry.hooks.values()]
        stateful = [type(hook).__name__ for hook in hooks if hook._is_stateful and hook is not self]
        if stateful or getattr(self.watched[0], "is_cache_enabled", False):
            raise UnsupportedModelError(
                f"a cache ({', '.join(stateful) or 'enable_cache'}) was enabled while a spec is applied; it takes the "
                "extra pass for another step. Leave the `with` block first, or disable the cache."
            )

    def _strength(self, timestep: Any) -> tuple[float, float]:
        """Return w and rho of this step; w is 0 outside the window."""
        spec = self.attachment.spec
        # Looking the step up costs a copy from the device to the host; what is the same everywhere needs none.
        if spec.constant:
            return spec.weight_at(0.0), spec.retention_at(0.0)
        here = place(self.pipe.scheduler, timestep)
        inside = spec.window.contains(here.in_unit(spec.window.unit))
        return spec.weight_at(here.sigma) if inside else 0.0, spec.retention_at(here.sigma)

    def _refuse_others(self) -> None:
        """What rows and guidance scale mean is the pipeline's word, which it keeps after its call; no one else may use it."""
        if not called_by(self.pipe):
            raise UnsupportedModelError(
                "the transformer was called while a spec is applied, but not by its pipeline, which alone says what "
                "the rows of the batch are. Call the pipeline, or leave the `with` block first."
            )

    def _is_cond(self) -> bool:
        """Tell whether this call holds the conditional branch."""
        guidance = self.layout.guidance
        if guidance.batched or not self.pipe.do_classifier_free_guidance:
            return True
        context = self.context._context  # its property raises where no context is open
        name = None if context is None else context.name
        if name not in guidance.rows:
            raise UnsupportedModelError(
                f"{type(self.pipe).__name__} called its transformer in the context {name!r}, which is none of "
                f"{guidance.rows}; which branch this is can't be told."
            )
        return name == "cond"

    def _cond_rows(self, batch: int) -> tuple[slice, float]:
        """Return the rows of the batch that are the conditional branch, and that branch's gain in the result."""
        if not self.pipe.do_classifier_free_guidance:
            return slice(0, batch), 1.0
        gain, branches = self.layout.guidance.gain(self.pipe.guidance_scale), self.layout.guidance.rows
        if not self.layout.guidance.batched:
            return slice(0, batch), gain
        if batch % len(branches):
            raise UnsupportedModelError(f"{batch} rows in the batch are not {len(branches)} equal parts {branches}.")
        size = batch // len(branches)
        start = branches.index("cond") * size
        return slice(start, start + size), gain


def _prediction(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output.sample


def _with_prediction(output: Any, prediction: torch.Tensor) -> Any:
    if isinstance(output, tuple):
        return (prediction, *output[1:])
    return dataclasses.replace(output, sample=prediction)
