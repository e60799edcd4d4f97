"""Embedded, really trained small models and the scripts that made them.

Importing this package is cheap: nothing here imports torch. The scripts run as ``python -m workbench.models.mini``.
"""

from __future__ import annotations

from pathlib import Path

EMBEDDED: dict[str, Path] = {name: Path(__file__).parent / name for name in ("mini-image", "mini-video")}
"""Folders of the embedded models by name; each is an ordinary diffusers folder."""

JUDGES: dict[str, Path] = {name: Path(__file__).parent / f"{name}-judge" for name in EMBEDDED}
"""Folders of what measures an embedded model's pictures or clips, by its name; `mini-video`'s holds no network."""

SIZES: dict[str, dict[str, int]] = {"mini-video": {"height": 64, "width": 64, "num_frames": 17}}
"""What embedded models generate unless told otherwise, where their pipeline's own default is another."""

WEIGHTS: dict[str, str] = {"mini-image": "3bb31006a5ba3fae"}
"""`weight_hash` of the embedded models, by which a store that names one is checked."""


def default_size(folder: str | Path) -> dict[str, int]:
    """Size that the model in `folder` generates unless told otherwise; empty where its pipeline knows best."""
    path = Path(folder).resolve()
    return next((dict(size) for name, size in SIZES.items() if EMBEDDED[name].resolve() == path), {})


def embedded_path(name: str) -> Path:
    """Folder of the embedded model ``name``.

    Raises
    ------
    KeyError
        If no embedded model has that name; the message lists those that exist.
    FileNotFoundError
        If the model is known but its folder was not installed.
    """
    if name not in EMBEDDED:
        raise KeyError(f"no embedded model {name!r}; there are: {', '.join(sorted(EMBEDDED))}")
    path = EMBEDDED[name]
    if not (path / "model_index.json").is_file():
        raise FileNotFoundError(f"the folder of the embedded model {name!r} is missing: {path}")
    return path
