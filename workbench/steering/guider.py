"""Detail Guidance as a guider of diffusers: for modular pipelines, and for stock ones that take a guider.

Such a pipeline leaves it to the guider which passes a step has and how their predictions are combined, so the formula is
computed as it stands, ``D = D_u + s (D_c - D_u) + w (D_c - D_m)``, and what the pipeline is needn't be known; only its
transformer. Calls come in this order at every step: ``set_state``, ``prepare_inputs``, then for each pass
``prepare_models``, the transformer, ``cleanup_models``, and at last the guider itself.
"""

from __future__ import annotations

import contextlib
import math
import sys
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.guiders.guider_utils import BaseGuidance, GuiderOutput

from workbench.errors import SpecError, UnsupportedModelError
from workbench.models import layout_for
from workbench.models.call import TransformerCall
from workbench.models.layout import Layout, Timestep
from workbench.steering.attach import hooked
from workbench.steering.caller import scheduler_of
from workbench.steering.check import check_guidable, check_model
from workbench.steering.partial import Degraded
from workbench.steering.root import CacheWatch
from workbench.steering.schedule import place
from workbench.steering.spec import DetailGuidanceSpec, parse_spec

COND, UNCOND, DEGRADED = "pred_cond", "pred_uncond", "pred_cond_degraded"


class GuiderHook(CacheWatch):
    """Around the transformer: does what the next pass needs, and nothing unless the guider has announced one."""

    def __init__(self, transformer: torch.nn.Module, layout: Layout, degraded: Degraded) -> None:
        super().__init__(transformer, layout)
        self.layout, self.degraded = layout, degraded
        self.announced = ""
        self.rho = 0.0

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Run the pass that was announced."""
        forward: Any = self.fn_ref.original_forward  # type: ignore[attr-defined]
        # Taken back at once: after an exception in the pass, or another guider's calls, none is announced.
        announced, self.announced = self.announced, ""
        if not (self.enabled and announced):
            return forward(*args, **kwargs)
        self.refuse_cache()
        call = TransformerCall.bound(self.layout, module, args, kwargs)
        if announced == COND:
            return self.degraded.first(forward, args, kwargs, rows=slice(0, call.rows), batch=call.rows)
        return self.degraded.second(forward, args, kwargs, call, rho=self.rho)


class DetailGuidance(ClassifierFreeGuidance):  # type: ignore[misc]
    """A guider that adds Detail Guidance to classifier-free guidance.

    It puts its hooks on the transformer at the first step of the first run, where it also checks that spec and model go
    together, and leaves them there, idle unless this guider announces a pass. `detach` takes them off.

    Parameters
    ----------
    spec : dict
        A spec of Detail Guidance as JSON values; `from_spec` takes the spec itself.
    guidance_scale : float
        s; at 1 there is no unconditional pass. The pipeline takes it from its guider, not from its call.
    use_original_formulation : bool
        True for ``D_c + s (D_c - D_u)`` in place of ``D_u + s (D_c - D_u)``, then without unconditional pass at s = 0; what
        some pipelines' own guiders compute (Krea-2).
    strict : bool
        As of `workbench.apply`: False also accepts other weights of the same architecture, with a warning.
    enabled : bool
        False for the conditional pass alone, as of every guider.

    Raises
    ------
    SpecError
        If a value is not valid, the spec was altered, or is of another method; at the first step, if it is for another
        model, or names a layer or channel that the model does not have.
    UnsupportedModelError
        At a step, if the transformer can't be steered this way; the message says why and what to do.
    """

    _input_predictions: ClassVar[list[str]] = [COND, UNCOND, DEGRADED]

    @register_to_config  # type: ignore[misc]
    def __init__(
        self,
        spec: dict[str, Any],
        guidance_scale: float,
        use_original_formulation: bool = False,
        strict: bool = True,
        enabled: bool = True,
    ) -> None:
        # Not the parent's: that would add its rescaling, which is not linear, to the config.
        BaseGuidance.__init__(self, enabled=enabled)
        switches = {"use_original_formulation": use_original_formulation, "strict": strict, "enabled": enabled}
        for name, value in switches.items():
            if not isinstance(value, bool):
                raise SpecError(f"{name} of the guider is {value!r}; valid: true, false.")
        if type(guidance_scale) not in (int, float) or not math.isfinite(guidance_scale):
            raise SpecError(f"guidance_scale of the guider is {guidance_scale!r}; give a finite number.")
        if not isinstance(spec, dict):
            raise SpecError(
                f"spec of the guider is a {type(spec).__name__}; use `DetailGuidance.from_spec(load_spec(path))`."
            )
        parsed = parse_spec(spec)
        if not isinstance(parsed, DetailGuidanceSpec):
            raise SpecError(
                f"the spec is of {parsed.method}, this guider is for {DetailGuidanceSpec.METHOD}. Use `workbench.apply`."
            )
        self.spec, self.strict = parsed, strict
        self.guidance_scale, self.guidance_rescale = guidance_scale, 0.0
        self.use_original_formulation = use_original_formulation
        self._weight, self._rho, self._passes = 0.0, 0.0, [COND]
        self._hook: GuiderHook | None = None
        self._installed = contextlib.ExitStack()

    @classmethod
    def from_spec(cls, spec: DetailGuidanceSpec, *, guidance_scale: float | None = None, **settings: Any) -> Self:
        """Make a guider of a spec; the scale is the recommended one unless it is given."""
        if not isinstance(spec, DetailGuidanceSpec):
            raise SpecError(
                f"a {type(spec).__name__} is not a spec of Detail Guidance; load one with `load_spec(path)`."
            )
        scale = spec.recommended.guidance_scale if guidance_scale is None else guidance_scale
        if scale is None:
            raise SpecError("the spec recommends no guidance scale; give `guidance_scale=`.")
        return cls(spec=spec.model_dump(mode="json"), guidance_scale=scale, **settings)

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Make a guider of a config, which may be a stranger's: nothing unknown is passed over, nothing missing made up."""
        if not isinstance(config, dict):
            raise SpecError(
                f"the guider's config is a {type(config).__name__}; give a dict, or use `from_pretrained(folder)`."
            )
        valid = cls._get_init_keys(cls) - {"self"}
        given = {key: value for key, value in config.items() if not key.startswith("_")}
        name = config.get("_class_name", cls.__name__)
        unknown = (given.keys() | (set() if return_unused_kwargs else kwargs.keys())) - valid
        missing = {"spec", "guidance_scale"} - given.keys() - kwargs.keys()
        wrong = [f"it is of class {name!r}"] if name != cls.__name__ else []
        wrong += [f"unknown keys: {', '.join(sorted(unknown))}"] if unknown else []
        wrong += [f"missing keys: {', '.join(sorted(missing))}"] if missing else []
        if wrong:
            raise SpecError(
                f"this is no config of {cls.__name__}: {'; '.join(wrong)}. Valid keys: {', '.join(sorted(valid))}. Take one "
                "that `save_pretrained` has written."
            )
        return super().from_config(given, return_unused_kwargs, **kwargs)

    def set_state(self, step: int, num_inference_steps: int, timestep: torch.Tensor) -> None:
        """Begin a step: look up what the spec says for it."""
        super().set_state(step, num_inference_steps, timestep)
        self._weight, rho, spec = 0.0, 0.0, self.spec
        if self._enabled and not spec.idle:
            if spec.constant:
                self._weight, rho = spec.weight_at(0.0), spec.retention_at(0.0)
            else:
                here = place(scheduler_of(sys._getframe(1)), torch.as_tensor(timestep), Timestep())
                inside = spec.window.contains(here.in_unit(spec.window.unit))
                self._weight, rho = spec.weight_at(here.sigma) if inside else 0.0, spec.retention_at(here.sigma)
            if rho == 1:
                self._weight = 0.0
        if self._hook is not None:
            self._hook.announced = ""
            self._hook.degraded.shared.clear()  # of a step that an exception ended
        self._rho = rho

    def prepare_inputs(self, data: Any) -> list[Any]:
        """The inputs of each pass of this step."""
        return self._with_degraded(super().prepare_inputs(data), lambda: self._prepare_batch(data, 0, DEGRADED))

    def prepare_inputs_from_block_state(self, data: Any, input_fields: Any) -> list[Any]:
        """The inputs of each pass of this step."""
        return self._with_degraded(
            super().prepare_inputs_from_block_state(data, input_fields),
            lambda: self._prepare_batch_from_block_state(input_fields, data, 0, DEGRADED),
        )

    def _with_degraded(self, batches: list[Any], degraded: Any) -> list[Any]:
        batches = [*batches, degraded()] if self._weight else batches
        self._passes = [getattr(batch, self._identifier_key) for batch in batches]
        return batches

    def prepare_models(self, denoiser: torch.nn.Module) -> None:
        """Announce the next pass to the hook."""
        super().prepare_models(denoiser)
        if not self._enabled:
            return
        hook = self._hook
        if hook is None or hook.watched[0] is not denoiser:
            hook = self._install(denoiser)
        if self._count_prepared > len(self._passes):
            raise UnsupportedModelError(
                f"the pipeline prepares pass {self._count_prepared} of a step of {len(self._passes)} ({', '.join(self._passes)}); "
                "this guider can't tell which that is."
            )
        name = self._passes[self._count_prepared - 1]
        hook.announced, hook.rho = name if self._weight and name != UNCOND else "", self._rho

    def cleanup_models(self, denoiser: torch.nn.Module) -> None:
        """End the pass."""
        if self._hook is not None:
            self._hook.announced = ""

    def _install(self, denoiser: torch.nn.Module) -> GuiderHook:
        self.detach()
        layout = layout_for(denoiser)
        check_guidable(layout)
        check_model(self.spec, SimpleNamespace(transformer=denoiser), layout, strict=self.strict)
        degraded = Degraded(denoiser, layout, self.spec.layer, self.spec.channels, self.spec.action)
        hook = GuiderHook(denoiser, layout, degraded)
        for module, item in (*degraded.hooks, (denoiser, hook)):
            self._installed.enter_context(hooked(module, item))
        self._hook = hook
        return hook

    def detach(self) -> None:
        """Take the hooks off the transformer, which is then as it was; the next run puts them on again."""
        self._hook = None
        self._installed.close()

    def __call__(self, data: list[Any]) -> GuiderOutput:
        """Combine the predictions of a step's passes."""
        return self.forward(**{getattr(batch, self._identifier_key): batch.noise_pred for batch in data})

    def forward(self, pred_cond: Any, pred_uncond: Any = None, pred_cond_degraded: Any = None) -> GuiderOutput:
        """``D_u + s (D_c - D_u) + w (D_c - D_m)``, or what of it this step has."""
        output = super().forward(pred_cond, pred_uncond)
        if pred_cond_degraded is not None:
            output.pred = output.pred + self._weight * (pred_cond - pred_cond_degraded)
        return output

    @property
    def is_conditional(self) -> bool:
        """Whether the pass that was prepared last has the prompt."""
        return self._passes[self._count_prepared - 1] != UNCOND

    # `num_conditions` stays the parent's: pipelines ask it whether a negative prompt is needed; the degraded pass needs none.


__all__ = ["DetailGuidance"]
