"""The MA workbench: record, analyse and steer massive activations in diffusion transformers.

The verbs are imported when they are first used, so that importing the package is quick and analysing a recording needs
neither torch nor a GPU.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

#: Public verb → the module that has it. The command line offers the same.
_VERBS = {
    "open": "workbench.store",
    "verify": "workbench.store",
    "profile": "workbench.analysis.profile",
    "locate": "workbench.analysis.locate",
    "modulation": "workbench.analysis.modulation",
    "causal": "workbench.analysis.causal",
    "hierarchy": "workbench.analysis.hierarchy",
    "disrupt": "workbench.sampling.disrupt",
    "disruption": "workbench.analysis.disruption",
    "sweep": "workbench.sampling.sweep",
    "baselines": "workbench.sampling.baselines",
    "stas_trial": "workbench.sampling.steer",
    "stas_effects": "workbench.analysis.stas",
    "derive_dg": "workbench.steering.derive",
    "derive_stas": "workbench.steering.derive_stas",
    "load_spec": "workbench.steering.spec",
    "save_spec": "workbench.steering.spec",
    "apply": "workbench.steering.attach",
    "DetailGuidance": "workbench.steering.guider",
    "sample": "workbench.sampling.sampler",
    "load_pipeline": "workbench.models",
    "Select": "workbench.select",
}
_RENAMED = {"open": "open_recording"}

#: Verbs that are called like the room they are in; those packages are callable, see `workbench.callable`.
_ROOMS = ("record", "report")

__all__ = ["__version__", *sorted([*_VERBS, *_ROOMS])]


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        value = getattr(import_module(_VERBS[name]), _RENAMED.get(name, name))
        globals()[name] = value
        return value
    if name in _ROOMS:
        return import_module(f"workbench.{name}")
    raise AttributeError(f"module 'workbench' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
