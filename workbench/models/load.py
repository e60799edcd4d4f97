"""Load a pipeline from an embedded name, a local folder or a hub id; never runs code that comes with the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.errors import UnsupportedModelError
from workbench.models.mini import EMBEDDED, embedded_path
from workbench.models.preset import Preset
from workbench.models.presets import PRESETS
from workbench.models.registry import layout_for

DTYPES = ("float32", "bfloat16", "float16")


def load_pipeline(
    model: str | Path, *, revision: str | None = None, dtype: str | None = None, device: str | None = None
) -> Any:
    """Load a diffusers pipeline and check that its transformer is one that the workbench knows.

    Parameters
    ----------
    model : str or Path
        An embedded name (``mini-image``), a preset's (``sd3-medium``), a local diffusers folder, or a hub id (``owner/name``).
    revision : str, optional
        Branch, tag or commit on the hub.
    dtype : {"float32", "bfloat16", "float16"}, optional
        Default: float32 on the CPU, bfloat16 on an accelerator.
    device : str, optional
        Default: ``cuda`` if there is one, else ``cpu``.

    Raises
    ------
    UnsupportedModelError
        If the model can't be found, can't be read, or is not a supported diffusion transformer.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise UnsupportedModelError(
            f"device {device!r} is none: give cpu, cuda, cuda:1, … ({_first_line(error)})"
        ) from error
    dtype = dtype or ("float32" if kind == "cpu" else "bfloat16")
    if dtype not in DTYPES:
        raise UnsupportedModelError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}.")
    source, local = _source(model)
    with _quiet():
        pipe = _from_pretrained(source, local=local, revision=revision, dtype=getattr(torch, dtype))
    layout_for(pipe, token_timesteps=True)
    pipe.set_progress_bar_config(disable=True)
    try:
        return pipe.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UnsupportedModelError(f"The model can't be put on device {device!r}: {_first_line(error)}") from error


def _source(model: str | Path) -> tuple[str, bool]:
    """Resolve the user's word to what ``from_pretrained`` takes; True if it lies on this machine."""
    name = str(model)
    if name in EMBEDDED:
        try:
            return str(embedded_path(name)), True
        except FileNotFoundError as error:
            raise UnsupportedModelError(
                f"{error}. Install the package anew, or train it: see its model card."
            ) from error
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise UnsupportedModelError(
                f"{path} is a folder, but not a diffusers pipeline: it has no model_index.json. Point at the folder "
                "that `pipeline.save_pretrained(folder)` wrote."
            )
        # Absolute, or a relative folder of two words would be taken for a hub id.
        return str(path.resolve()), True
    if name in PRESETS:  # after the folders: one of that name is meant where there is one
        return _hub_of(PRESETS[name]), False
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UnsupportedModelError(
            f"{name!r} is neither an embedded model ({', '.join(EMBEDDED)}), nor a preset ({', '.join(PRESETS)}), "
            "nor an existing diffusers folder, nor a hub id of the form owner/name."
        )
    return name, False


def _hub_of(preset: Preset) -> str:
    if preset.transformer_alone:
        raise UnsupportedModelError(
            f"{preset.name}: {preset.hub} holds the transformer without the pipeline around it. Load it with its class's "
            f"from_pretrained, put it into the pipeline that it was made from ({preset.pipeline}.from_pretrained(…, "
            "transformer=…)), save that with save_pretrained(folder), and give the folder."
        )
    return preset.hub


def _from_pretrained(source: str, *, local: bool, revision: str | None, dtype: Any) -> Any:
    from diffusers import DiffusionPipeline

    load: Any = DiffusionPipeline.from_pretrained  # diffusers has no annotations here

    try:
        return load(source, revision=revision, dtype=dtype, use_safetensors=True, local_files_only=local)
    except Exception as error:  # a damaged folder makes the loaders raise nearly anything
        what = "read" if local else "fetched from the hub (or found in the local hub cache)"
        fix = (
            "Check that the folder is complete and its weights are .safetensors."
            if local
            else f"Check the name, the network and your access, or download it elsewhere "
            f"(`hf download {source}`) and give the folder."
        )
        raise UnsupportedModelError(f"{source!r} could not be {what}: {_first_line(error)} {fix}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the loaders' progress bars and remarks (on optional packages, mostly); errors still come through."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    libraries: list[Any] = [of_diffusers, of_transformers]
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    levels = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.disable_progress_bar()
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
        for library in shown:
            library.enable_progress_bar()
