"""May this spec act on this pipeline? Every refusal says what was found, what is valid, and what to do."""

from __future__ import annotations

import warnings
from typing import Any

from workbench.errors import SpecError, UnsupportedModelError
from workbench.models import fingerprint, layout_for
from workbench.models.generate import STEERING_HOOK as HOOK
from workbench.models.layout import Layout
from workbench.steering.spec import DetailGuidanceSpec

PIPELINES = {"sd3": ("StableDiffusion3Pipeline",), "wan": ("WanPipeline",)}
"""Stock pipelines, by family, whose way of combining the branches has been checked against a plain implementation."""


def check(spec: DetailGuidanceSpec, pipe: Any, *, strict: bool) -> None:
    """Raise if `spec` can't or must not act on `pipe`; see `workbench.steering.attach.apply`."""
    if not isinstance(spec, DetailGuidanceSpec):
        raise SpecError(f"a {type(spec).__name__} is not a spec; load one with `load_spec(path)`.")
    spec.verify()
    layout = layout_for(pipe)
    _check_pipeline(pipe, layout)
    _check_model(spec, pipe, layout, strict=strict)
    _check_layer(spec, pipe.transformer, layout)
    _check_hooks(pipe.transformer)


def _check_pipeline(pipe: Any, layout: Layout) -> None:
    name = type(pipe).__name__
    valid = PIPELINES.get(layout.family, ())
    if name not in valid:
        raise UnsupportedModelError(
            f"specs act on {', '.join(valid) or 'no stock pipeline yet'} of the family {layout.family}, not on a "
            f"{name}: how that combines its branches has not been checked."
        )
    if not layout.guidance.linear:
        raise UnsupportedModelError(
            f"{name} combines its branches in a way that is not linear in the conditional prediction, so a hook around "
            "the transformer can't produce Detail Guidance there."
        )


def _check_model(spec: DetailGuidanceSpec, pipe: Any, layout: Layout, *, strict: bool) -> None:
    found: dict[str, Any] = {"family": layout.family, **fingerprint(pipe)}
    wanted = spec.model.model_dump()
    both = f"\n  spec:     {_line(wanted)}\n  pipeline: {_line(found)}\n"
    if any(wanted[key] != found[key] for key in ("family", "transformer_class", "config_hash")):
        raise SpecError(
            f"the spec is for another model:{both}Load the model that the spec names, or record this one and derive "
            "a spec from that."
        )
    if wanted["weight_hash"] == found["weight_hash"] and found["weight_hash"] is not None:
        return
    if strict:
        raise SpecError(
            f"the spec is for other weights of this architecture:{both}Load the weights that the spec names, or derive "
            "a spec from these. For a fine-tune of the same model, `strict=False` accepts it with a warning."
        )
    warnings.warn(
        f"applying a spec that was derived from other weights (strict=False):{both}Whether the same channels are "
        "massive here is not known.",
        stacklevel=6,
    )


def _check_layer(spec: DetailGuidanceSpec, transformer: Any, layout: Layout) -> None:
    paths = layout.block_paths(transformer)
    if spec.layer not in paths:
        raise SpecError(
            f"the model has no block {spec.layer!r}; its blocks are {paths[0]} … {paths[-1]} ({len(paths)} of them). "
            "Name one of those as `layer`."
        )
    width = int(transformer.config.num_attention_heads * transformer.config.attention_head_dim)
    outside = [channel for channel in spec.channels if channel >= width]
    if outside:
        raise SpecError(
            f"the model has no channel {', '.join(map(str, outside))}: its hidden state has {width} channels, 0 to "
            f"{width - 1}. Name channels in that range."
        )


def _check_hooks(transformer: Any) -> None:
    for module in transformer.modules():
        registry = module.__dict__.get("_diffusers_hook")
        hooks = dict(registry.hooks) if registry is not None else {}
        if HOOK in hooks:
            raise SpecError("a spec is applied to this model already; leave that `with` block before applying another.")
        stateful = [name for name, item in hooks.items() if item._is_stateful]
        if stateful or getattr(module, "is_cache_enabled", False):
            raise UnsupportedModelError(
                f"a cache is enabled ({', '.join(stateful) or 'enable_cache'}): it takes the extra pass for another "
                "step and reuses what it must not. Disable it (`pipe.transformer.disable_cache()`) while a spec acts."
            )
    if hasattr(transformer, "_hf_hook"):
        raise UnsupportedModelError(
            "offloading is enabled on the transformer; its hook would drop the spec's after the first call. Load the "
            "pipeline without offloading (`pipe.to(device)`) to apply a spec."
        )
    if getattr(transformer, "_parallel_config", None) is not None:
        raise UnsupportedModelError(
            "the transformer runs under context parallelism, which splits the tokens; turn it off."
        )


def _line(reference: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in reference.items() if value is not None)
