"""The hook around the transformer that makes Detail Guidance out of a stock pipeline; `attach` puts it on and off."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from workbench.errors import UnsupportedModelError
from workbench.models.call import TransformerCall
from workbench.models.layout import Layout
from workbench.steering.caller import value_of
from workbench.steering.detail_guidance import shifted_cond
from workbench.steering.partial import Degraded
from workbench.steering.root import Attached, TransformerHook
from workbench.steering.schedule import place
from workbench.steering.spec import DetailGuidanceSpec


@dataclasses.dataclass
class Attachment(Attached):
    """What an attached spec of Detail Guidance has done so far.

    Attributes
    ----------
    spec : DetailGuidanceSpec
    calls : int
        Calls of the transformer by the pipeline: one a step, or one a step and branch.
    degraded_passes : int
        Degraded passes that were run for the guidance: one for each step at which the spec acts.
    """

    spec: DetailGuidanceSpec
    degraded_passes: int = 0


class RootHook(TransformerHook):
    """Around the transformer: the pass that the pipeline asked for, and the degraded one where it is due."""

    def __init__(self, attachment: Attachment, pipe: Any, layout: Layout, degraded: Degraded) -> None:
        super().__init__(pipe, layout)
        self.attachment = attachment
        self.degraded = degraded

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Return the pipeline's output with ``c' = c + (w / g)(c - d)`` in the rows of the conditional branch."""
        forward: Any = self.fn_ref.original_forward  # type: ignore[attr-defined]
        if not self.enabled:
            return forward(*args, **kwargs)
        self.attachment.calls += 1
        self.refuse_cache()
        if self.attachment.spec.idle:
            return forward(*args, **kwargs)
        call = TransformerCall.bound(self.layout, module, args, kwargs)
        self.refuse_others()
        weight, rho = self._strength(call.timestep) if self._is_cond(call) else (0.0, 0.0)
        if weight == 0 or rho == 1:
            return forward(*args, **kwargs)
        if call.arguments.get("skip_layers") is not None:
            raise UnsupportedModelError(
                "the pipeline was called with skip_guidance_layers; its skip-layer guidance uses the conditional "
                "prediction a second time, so the two can't be combined exactly. Leave one of them out."
            )
        rows, gain = self._cond_rows(call.rows)
        output, degraded = self.degraded.passes(forward, args, kwargs, call, rows=rows, rho=rho)
        self.attachment.degraded_passes += 1
        return shifted(output, degraded, rows, weight, gain)

    def _strength(self, timestep: Any) -> tuple[float, float]:
        """Return w and rho of this step; w is 0 outside the window."""
        spec = self.attachment.spec
        # Looking the step up costs a copy from the device to the host; what is the same everywhere needs none.
        if spec.constant:
            return spec.weight_at(0.0), spec.retention_at(0.0)
        here = place(self.pipe.scheduler, timestep, self.layout.timestep)
        inside = spec.window.contains(here.in_unit(spec.window.unit))
        return spec.weight_at(here.sigma) if inside else 0.0, spec.retention_at(here.sigma)

    def _is_cond(self, call: TransformerCall) -> bool:
        """Tell whether this call holds the conditional branch."""
        return (self.guidance is not None and self.guidance.batched) or self.branch(call) == "cond"

    def _cond_rows(self, batch: int) -> tuple[slice, float]:
        """Return the rows of the batch that are the conditional branch, and that branch's gain in the result."""
        branches = self.branches()
        if self.guidance is None or len(branches) == 1:
            return slice(0, batch), 1.0
        for name in self.guidance.linear_without:
            if value := value_of(self.pipe, name):
                raise UnsupportedModelError(
                    f"{type(self.pipe).__name__} is called with {name.removeprefix('_')} = {value}, with which the result of "
                    "guidance is not linear in the conditional prediction, or not by the scale that was given; Detail Guidance needs it "
                    "to be. Leave it out."
                )
        gain = self.guidance.gain_at(value_of(self.pipe, self.guidance.scale))
        if not self.guidance.batched:
            return slice(0, batch), gain
        if batch % len(branches):
            raise UnsupportedModelError(f"{batch} rows in the batch are not {len(branches)} equal parts {branches}.")
        size = batch // len(branches)
        start = branches.index("cond") * size
        return slice(start, start + size), gain


def shifted(output: Any, degraded: Any, rows: slice, weight: float, gain: float) -> Any:
    """The transformer's output with ``c' = c + (w / g)(c − d)`` in `rows`; a list of predictions (one a row) as a list."""
    prediction, lower = _prediction(output), _prediction(degraded)
    if isinstance(prediction, list):
        changed: Any = list(prediction)
        changed[rows] = [shifted_cond(c, d, weight, gain) for c, d in zip(prediction[rows], lower, strict=True)]
    else:
        changed = prediction.clone()
        changed[rows] = shifted_cond(prediction[rows], lower, weight, gain)
    return _with_prediction(output, changed)


def _prediction(output: Any) -> Any:
    """The first thing that a transformer returns, whether in a tuple or in diffusers' kind of dataclass."""
    return output[0]


def _with_prediction(output: Any, prediction: Any) -> Any:
    if isinstance(output, tuple):
        return (prediction, *output[1:])
    first = next(iter(output.keys()))
    return dataclasses.replace(output, **{first: prediction})
