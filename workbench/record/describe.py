"""What a recording says about itself: identity, coordinates, attributes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import RoleError
from workbench.models import Encode, component_hashes, embedding_hash, fingerprint
from workbench.models.layout import Layout
from workbench.record.plan import Plan
from workbench.record.probe import Shape
from workbench.record.provenance import git_revision, versions
from workbench.record.settings import Settings
from workbench.roles import default_width, roles_of_grid
from workbench.store.schema import FORMAT, SCHEMA_VERSION

#: What a recording says of itself whose tokens have timesteps of their own.
TOKEN_TIMESTEPS = "one a token: token_timestep; temb and modulation are those of the first token with the largest"


def identity_of(pipe: Any, settings: Settings, encode: Encode | None, revision: str | None) -> dict[str, Any]:
    """What decides the numbers: settings, model, scheduler, arithmetic. Compared item by item at a resume."""
    return {
        **settings.model_dump(mode="json"),
        "model": fingerprint(pipe, revision=revision),
        "components": component_hashes(pipe, encode),
        "pipeline_class": type(pipe).__name__,
        "scheduler": {"class": type(pipe.scheduler).__name__, **_plain(pipe.scheduler.config)},
        "dtype": str(pipe.transformer.dtype).removeprefix("torch."),
        "device": pipe.transformer.device.type,
        "embeddings": embedding_hash(encode, settings.prompts),
        "torch": versions()["torch"],
        "diffusers": versions()["diffusers"],
    }


def boundary_of(shape: Shape, width: int | None, first: str = "") -> dict[str, Any]:
    """Attributes of the boundary width; none for what has no roles: an image, or frames of fewer than three tokens.

    Parameters
    ----------
    shape, width
    first : str
        What the first token frame holds, where that is not the video's first frame.

    Raises
    ------
    RoleError
        If a width is given that can't be used here.
    """
    if first:
        why = f"The first token frame holds {first}, not the video's first frame."
        if width is not None:
            raise RoleError(f"{why} Its tokens have no roles; leave boundary_width out.")
        return {"no_roles": why}
    if width is not None:
        roles_of_grid(shape.grid, width)
        return {"boundary_width": int(width), "boundary_width_source": "given"}
    try:
        width, source = default_width(shape.grid)
    except RoleError:
        return {}
    return {"boundary_width": width, "boundary_width_source": source}


def coordinates_of(settings: Settings, plan: Plan, shape: Shape, width: int | None = None) -> dict[str, np.ndarray]:
    """Coordinate name → values, as in ``docs/schema.md``; with a boundary width also the roles."""
    prompts, seeds = zip(*settings.samples, strict=True)
    frames, rows, columns = np.indices(shape.grid).reshape(3, -1)
    steps = list(plan.steps)
    blocks = {layer: i - 1 for i, layer in enumerate(shape.layers)}
    coordinates = {
        "sample": np.arange(len(prompts)),
        "prompt": np.array(prompts, dtype=object),
        "seed": np.array(seeds),
        "branch": np.array(plan.branches, dtype=object),
        "layer": np.array(plan.layers, dtype=object),
        "block": np.array([blocks[layer] for layer in plan.layers]),
        "timestep": shape.timesteps[steps],
        "step": np.array(steps),
        "sigma": shape.sigmas[steps],
        "token": np.arange(shape.tokens),
        "frame": frames,
        "row": rows,
        "column": columns,
        "channel": np.arange(shape.channels),
        "rank": np.arange(plan.sizes["rank"]),
        "modulation_term": np.array(shape.terms, dtype=object),
    }
    if width is not None:
        coordinates["role"] = roles_of_grid(shape.grid, width).astype(object)
    return coordinates | (_of_experiment(settings, plan, shape) if plan.cells else {})


def _of_experiment(settings: Settings, plan: Plan, shape: Shape) -> dict[str, np.ndarray]:
    """The further coordinates of an experiment: what went in that is not the timestep's and the sample's own."""
    prompts, seeds = zip(*settings.samples, strict=True)
    embedded = [cell.embedding_step for cell in plan.cells]
    one_latent = settings.experiment == "prompt-swap"
    return {
        "embedding_timestep": shape.timesteps[embedded],
        "embedding_sigma": shape.sigmas[embedded],
        "swap": np.array([cell.swap for cell in plan.cells], dtype=object),
        "swap_block": np.array([cell.block for cell in plan.cells], dtype=object),
        "latent_prompt": np.array([prompts[0] if one_latent else prompt for prompt in prompts], dtype=object),
        "latent_seed": np.array(seeds),
    }


def name_of(model: Any, pipe: Any) -> str:
    """What people call the model: its embedded name or hub id, the folder's name, or the pipeline's class."""
    # A pipeline knows where it was loaded from; one that was put together in memory does not.
    source = (getattr(pipe, "name_or_path", None) or type(pipe).__name__) if model is pipe else model
    return Path(source).name if Path(source).is_dir() else str(source)


def attributes_of(name: str, layout: Layout, shape: Shape, plan: Plan, identity: dict[str, Any]) -> dict[str, Any]:
    """Root attributes, as in ``docs/schema.md``."""
    return (
        {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "model_name": name,
            "model": identity["model"],
            "pipeline_class": identity["pipeline_class"],
            "layout": {
                "family": layout.family,
                "transformer": layout.transformer,
                # Of the model, so that a recording of some layers is known to be one.
                "blocks": len(shape.layers) - 1,
                "channels": shape.channels,
            },
            "scheduler": identity["scheduler"],
            "dtype": identity["dtype"],
            "tier": identity["tier"],
            "settings": identity,
            "settings_fingerprint": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16],
            "versions": versions(),
            "git_revision": git_revision(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "block_steps": plan.block,
        }
        | ({"experiment": identity["experiment"]} if plan.cells else {})
        | ({"token_timesteps": TOKEN_TIMESTEPS} if shape.token_timesteps else {})
    )


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A diffusers config as plain JSON, without its private entries."""
    kept = {k: v for k, v in dict(config).items() if not k.startswith("_")}
    return dict(json.loads(json.dumps(kept, default=str)))
