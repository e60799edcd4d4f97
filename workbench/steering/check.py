"""May this spec act on this pipeline? Every refusal says what was found, what is valid, and what to do."""

from __future__ import annotations

import warnings
from typing import Any

from workbench.errors import SpecError, UnsupportedModelError
from workbench.models import fingerprint, guidance_of, layout_for, pipeline_of
from workbench.models.generate import STEERING_HOOK as HOOK
from workbench.models.generate import is_steered
from workbench.models.layout import Layout
from workbench.steering.base import Spec
from workbench.steering.spec import DetailGuidanceSpec, StasSpec


def check(spec: Spec, pipe: Any, *, strict: bool) -> Layout:
    """Raise if `spec` can't or must not act on `pipe`, else return its layout; see `workbench.steering.attach.apply`."""
    if not isinstance(spec, (DetailGuidanceSpec, StasSpec)):
        raise SpecError(f"a {type(spec).__name__} is not a spec; load one with `load_spec(path)`.")
    spec.verify()
    stas = isinstance(spec, StasSpec)
    # STAS looks for the step only, which is the same for all tokens of a row that have not a timestep of 0.
    layout = layout_for(pipe, token_timesteps=stas)
    (_check_video if stas else _check_pipeline)(pipe, layout)
    check_model(spec, pipe, layout, strict=strict)
    if stas and is_steered(pipe):
        raise SpecError("this pipeline is being disrupted already; leave that `with` block before applying a spec.")
    return layout


def check_model(spec: DetailGuidanceSpec | StasSpec, pipe: Any, layout: Layout, *, strict: bool) -> None:
    """Raise if `spec` does not fit the transformer of `pipe`, whatever else that is."""
    _check_identity(spec, pipe, layout, strict=strict)
    _check_layers(spec.layers if isinstance(spec, StasSpec) else (spec.layer,), pipe.transformer, layout)
    _check_channels(spec.channels, layout.width_of(pipe.transformer))
    _check_hooks(pipe.transformer)


def check_guidable(layout: Layout) -> None:
    """Raise if the result of guidance is changed besides, in all that is known of the family, so that no guider can say it.

    A guider is given a transformer, not the pipeline; families that normalise the result do so in their modular pipelines too.
    """
    found = [entry.guidance for entry in layout.pipelines]
    if not any(guidance is None or guidance.linear or guidance.guider for guidance in found):
        raise UnsupportedModelError(
            f"a pipeline of the family {layout.family} does more with the predictions than its guider says "
            f"({'; '.join(dict.fromkeys(guidance.why for guidance in found if guidance))}), so the result would not be "
            "Detail Guidance."
        )


def _check_pipeline(pipe: Any, layout: Layout) -> None:
    guidance = guidance_of(pipe, layout)
    if guidance is not None and not guidance.linear:
        raise UnsupportedModelError(
            f"{type(pipe).__name__} combines its branches in a way that is not linear in the conditional prediction "
            f"({guidance.why}), so a hook around the transformer can't produce Detail Guidance there."
        )


def _check_video(pipe: Any, layout: Layout) -> None:
    if not layout.is_video:
        raise UnsupportedModelError(
            f"STAS steers the first latent frame and the boundaries of the later ones, and {type(pipe).__name__} makes images, "
            "which have neither. Use it with a pipeline of videos such as WanPipeline, or Detail Guidance here."
        )
    entry = pipeline_of(pipe, layout)  # a pipeline whose branches can't be told apart is refused
    if entry.first:
        raise UnsupportedModelError(
            f"STAS steers the first latent frame, and that of {type(pipe).__name__} holds {entry.first}, not the video's first "
            "frame. Detail Guidance can be used here."
        )


def _check_identity(spec: Spec, pipe: Any, layout: Layout, *, strict: bool) -> None:
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
        stacklevel=7,
    )


def _check_layers(layers: tuple[str, ...], transformer: Any, layout: Layout) -> None:
    paths = layout.block_paths(transformer)
    unknown = [layer for layer in layers if layer not in paths]
    if unknown:
        raise SpecError(
            f"the model has no block {', '.join(map(repr, unknown))}; its blocks are {paths[0]} … {paths[-1]} ({len(paths)} "
            "of them). Name those."
        )


def _check_channels(channels: tuple[int, ...], width: int) -> None:
    outside = [channel for channel in channels if channel >= width]
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
            raise SpecError(
                "a spec is applied to this model already; leave that `with` block, or `detach()` the guider that does so, before applying another."
            )
        stateful = [name for name, item in hooks.items() if item._is_stateful]
        if stateful or getattr(module, "is_cache_enabled", False):
            raise UnsupportedModelError(
                f"a cache is enabled ({', '.join(stateful) or 'enable_cache'}): it skips what a spec changes, and "
                "takes an extra pass for another step. Disable it (`pipe.transformer.disable_cache()`) while a spec acts."
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
