"""Attach a spec to a stock diffusers pipeline for the length of a ``with`` block.

Detail Guidance: a hook around the whole transformer (the root hook) runs the rows of the conditional branch once more with the channels
edited (`partial`: only from the edit on), and returns ``c' = c + (w / g)(c - d)`` in their place; the pipeline's own CFG
then yields paper A's formula. STAS: hooks on the chosen blocks change the state that leaves them, in the passes that the
pipeline makes anyway; the root hook tells them when. Nothing of the pipeline's code is copied, so what it does besides (callbacks, schedulers,
decoding) stays as it is.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, overload

import torch
from diffusers.hooks.hooks import HookRegistry

from workbench.models.generate import STEERING_HOOK as HOOK
from workbench.steering.check import check
from workbench.steering.hooks import Attachment, RootHook
from workbench.steering.partial import Degraded
from workbench.steering.partial import Hook as InnerHook
from workbench.steering.root import CacheWatch
from workbench.steering.spec import DetailGuidanceSpec, StasSpec
from workbench.steering.stas_hooks import LeavingHook, StasAttachment, StasHook

_ABSENT = object()
Hook = InnerHook | CacheWatch | LeavingHook


@overload
def apply(spec: DetailGuidanceSpec, pipe: Any, *, strict: bool = True) -> AbstractContextManager[Attachment]: ...
@overload
def apply(spec: StasSpec, pipe: Any, *, strict: bool = True) -> AbstractContextManager[StasAttachment]: ...


@contextlib.contextmanager
def apply(spec: DetailGuidanceSpec | StasSpec, pipe: Any, *, strict: bool = True) -> Iterator[Any]:
    """Steer a stock pipeline: ``with apply(spec, pipe): pipe(prompt)``.

    The guidance scale is the one of the pipeline call, read anew at every step, and the token grid is the one of the call.
    Steps outside the spec's window, and those at which it says to do nothing (Detail Guidance: weight 0 or retention 1;
    STAS: no alpha, or another branch), run exactly what the pipeline runs alone: one pass, the same bits. On leaving, also
    by an exception, hooks and attributes are gone.

    Inside the block, call the pipeline, not its transformer: what the rows of a batch are, only the pipeline knows, so any
    other call of the transformer is refused.

    Parameters
    ----------
    spec : DetailGuidanceSpec or StasSpec
        From `load_spec`, `derive_dg` or `derive_stas`.
    pipe : StableDiffusion3Pipeline, WanPipeline or (STAS only) WanImageToVideoPipeline
        A stock pipeline; STAS needs one that makes videos. Its ``transformer`` must be the model that the spec was derived for.
    strict : bool
        False also accepts other weights of the same architecture (say, a fine-tune): same class, same config. It then
        warns, because the channels were located in the other weights.

    Yields
    ------
    Attachment or StasAttachment
        Counts of calls, and of degraded passes or steered calls.

    Raises
    ------
    SpecError
        If the spec was altered, is for another model, or names a layer or channel that the model does not have; if a spec is
        applied already; or, at a call, if a boundary width of STAS leaves no interior of its frames.
    UnsupportedModelError
        If the pipeline can't be steered this way, also at a later call; the message says why and what to do.
    """
    layout, transformer = check(spec, pipe, strict=strict), pipe.transformer
    hooks: list[tuple[torch.nn.Module, Hook]] = []
    attachment: Attachment | StasAttachment
    if isinstance(spec, StasSpec):
        attachment = StasAttachment(spec)
        stas, blocks = StasHook(attachment, pipe, layout), layout.blocks(transformer)
        hooks += [(blocks[path][1], hook) for path, hook in zip(spec.layers, stas.leaving, strict=True)]
        hooks.append((transformer, stas))
    else:
        attachment = Attachment(spec)
        degraded = Degraded(transformer, layout, spec.layer, spec.channels, spec.action)
        hooks += degraded.hooks
        hooks.append((transformer, RootHook(attachment, pipe, layout, degraded)))
    with contextlib.ExitStack() as undo:
        for module, hook in hooks:
            undo.enter_context(hooked(module, hook))
        yield attachment


@contextlib.contextmanager
def hooked(module: torch.nn.Module, hook: Hook) -> Iterator[None]:
    """Register `hook` on `module`; afterwards take it off and put the module's attributes back as they were."""
    before = {name: module.__dict__.get(name, _ABSENT) for name in ("forward", "_diffusers_hook")}
    registry = HookRegistry.check_if_exists_or_initialize(module)
    registry.register_hook(hook, HOOK)
    installed = module.__dict__["forward"]
    # Contexts set by `cache_context` reach only the registries that were there when their list was last built.
    registry.invalidate_child_registries_cache()
    try:
        yield
    finally:
        hook.enabled = False
        if registry._hook_order[-1] == HOOK and module.__dict__.get("forward") is not installed:
            # Something outside the registry has wrapped the module meanwhile. Putting the old forward back would throw
            # that away, so the hook stays and does nothing.
            warnings.warn(
                f"{type(module).__name__} was wrapped by something else while a spec was applied; the spec no longer "
                "acts, but an idle hook stays. Wrap the model before `apply`, or after it.",
                stacklevel=5,
            )
        else:
            _remove(registry, hook)
            registry.invalidate_child_registries_cache()
            if not registry.hooks:  # else the user has put hooks of their own there, and the registry is theirs
                _restore(module, before)


def _remove(registry: HookRegistry, hook: Hook) -> None:
    """Take `hook` out of the chain.

    diffusers 0.42's own ``remove_hook`` overwrites the ``forward`` of the hook registered next, also where that is the
    hook's own ``new_forward`` (as of a cache); such a hook would never run again. Here only what it calls is replaced.
    """
    after = registry._hook_order.index(HOOK) + 1
    around = [ref for ref in registry._fn_refs[after : after + 1] if ref.original_forward is not None]
    kept = [ref.forward for ref in around]
    inner = hook.fn_ref.original_forward or hook.fn_ref.forward
    registry.remove_hook(HOOK, recurse=False)
    for ref, forward in zip(around, kept, strict=True):
        ref.forward, ref.original_forward = forward, inner


def _restore(module: torch.nn.Module, before: dict[str, Any]) -> None:
    for name, value in before.items():
        if value is _ABSENT:
            module.__dict__.pop(name, None)
        else:
            module.__dict__[name] = value


__all__ = ["Attachment", "StasAttachment", "apply", "hooked"]
