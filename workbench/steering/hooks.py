"""The hook around the transformer that makes Detail Guidance out of a stock pipeline; `attach` puts it on and off."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Any

import torch
from diffusers.hooks.hooks import ModelHook

from workbench.errors import UnsupportedModelError
from workbench.models.layout import Layout
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
        Calls of the transformer by the pipeline.
    degraded_passes : int
        Extra passes that were run for the guidance; ``calls - degraded_passes`` calls lay outside the window.
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
        # Not all modules: this is looked at in every call. Caches hook the blocks, or the transformer itself.
        self.watched = [pipe.transformer, *(block for _, block in layout.blocks(pipe.transformer).values())]
        self.signature = inspect.signature(type(pipe.transformer).forward)

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Return the pipeline's output with ``c' = c + (w / g)(c - d)`` in the rows of the conditional branch."""
        forward: Any = self.fn_ref.original_forward
        if not self.enabled:
            return forward(*args, **kwargs)
        self.attachment.calls += 1
        self._refuse_cache()
        arguments = self.signature.bind(module, *args, **kwargs).arguments
        if not self._due(arguments):
            return forward(*args, **kwargs)
        batch = arguments[self.layout.hidden_argument].shape[0]
        rows, gain = self._cond_rows(batch)
        tokens = math.prod(self.layout.grid(module, tuple(arguments[self.layout.hidden_argument].shape)))
        output, degraded = self.degraded.passes(forward, args, kwargs, rows=rows, batch=batch, rho=0.0, tokens=tokens)
        self.attachment.degraded_passes += 1
        prediction = _prediction(output).clone()
        prediction[rows] = shifted_cond(prediction[rows], _prediction(degraded), self.attachment.spec.weight, gain)
        return _with_prediction(output, prediction)

    def _refuse_cache(self) -> None:
        """Caches were looked for when the spec was attached; here, for one that was enabled since."""
        registries = [module.__dict__.get("_diffusers_hook") for module in self.watched]
        hooks = [hook for registry in registries if registry is not None for hook in registry.hooks.values()]
        stateful = [type(hook).__name__ for hook in hooks if hook._is_stateful]
        if stateful or getattr(self.watched[0], "is_cache_enabled", False):
            raise UnsupportedModelError(
                f"a cache ({', '.join(stateful) or 'enable_cache'}) was enabled while a spec is applied; it takes the "
                "extra pass for another step. Leave the `with` block first, or disable the cache."
            )

    def _due(self, arguments: dict[str, Any]) -> bool:
        """Whether this call gets a degraded pass."""
        spec = self.attachment.spec
        if spec.weight == 0:
            return False
        window = spec.window
        # Looking the step up costs a copy from the device to the host; a window that is always open needs none.
        if not window.everywhere and not window.contains(
            place(self.pipe.scheduler, arguments["timestep"]).in_unit(window.unit)
        ):
            return False
        if arguments.get("skip_layers") is not None:
            raise UnsupportedModelError(
                "the pipeline was called with skip_guidance_layers; its skip-layer guidance uses the conditional "
                "prediction a second time, so the two can't be combined exactly. Leave one of them out."
            )
        return True

    def _cond_rows(self, batch: int) -> tuple[slice, float]:
        """Return the rows of the batch that are the conditional branch, and that branch's gain in the result.

        Both are the pipeline's word, which it gives at its call and keeps afterwards: a transformer called directly
        later on is taken for one more call of the same kind. Before the first call there is no word, and it is refused.
        """
        guided = getattr(self.pipe, "do_classifier_free_guidance", None)  # absent before the pipeline's first call
        if guided is None:
            raise UnsupportedModelError(
                "the transformer was called while a spec is applied, but not by its pipeline, which alone says what "
                "the rows of the batch are. Call the pipeline, or leave the `with` block first."
            )
        if not guided:
            return slice(0, batch), 1.0
        branches = self.layout.guidance.rows
        if batch % len(branches):
            raise UnsupportedModelError(f"{batch} rows in the batch are not {len(branches)} equal parts {branches}.")
        size = batch // len(branches)
        start = branches.index("cond") * size
        return slice(start, start + size), self.layout.guidance.gain(self.pipe.guidance_scale)


def _prediction(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output.sample


def _with_prediction(output: Any, prediction: torch.Tensor) -> Any:
    if isinstance(output, tuple):
        return (prediction, *output[1:])
    return dataclasses.replace(output, sample=prediction)
