"""Sections to HTML. Everything is inside the one file: style, figures as base64, no script, no address to load."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import xarray as xr
from PIL import Image

from workbench import __version__
from workbench.report.sections import Section, model_name


def render(
    recording: xr.Dataset,
    found: xr.Dataset,
    followed: xr.Dataset,
    spec: dict[str, Any] | None,
    sections: Sequence[Section],
) -> str:
    """Render the page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["show"] = show
    here = files("workbench.report")
    template = environment.from_string((here / "page.html.j2").read_text(encoding="utf-8"))
    complete = int(((recording.unit_checksum != 0).all(("branch", "layer", "timestep"))).sum())
    total = recording.sizes["sample"]
    settings = recording.attrs["settings"]
    return template.render(
        title=f"Massive activations in {model_name(recording)}",
        lead=(
            f"{complete} samples ({len(settings['prompts'])} prompts × {len(settings['seeds'])} seeds), "
            f"{recording.sizes['timestep']} denoising steps, guidance scale {settings['guidance_scale']:g}, "
            f"{recording.sizes['layer'] - 1} blocks of {recording.sizes['channel']} channels, "
            f"{recording.sizes['token']} image tokens."
        ),
        css=(here / "page.css").read_text(encoding="utf-8"),
        cards=_cards(found, followed, spec),
        incomplete=(
            f"The recording is not complete: {total - complete} of {total} samples are missing and were left out."
            if complete < total
            else ""
        ),
        sections=[{**section.__dict__, "figures": [_inline(f) for f in section.figures]} for section in sections],
        footer=f"Written by dit-workbench {__version__} from {Path(recording.attrs['path']).name}, "
        f"settings fingerprint {recording.attrs['settings_fingerprint']}.",
    )


def _cards(found: xr.Dataset, followed: xr.Dataset, spec: dict[str, Any] | None) -> list[dict[str, str]]:
    cards = [
        _card("Are there massive activations?", found),
        _card("Does the timestep embedding modulate them?", followed),
    ]
    if spec is not None:
        cards.append(
            {
                "question": "Is there a Detail Guidance spec?",
                "verdict": "derived",
                "reason": f"Zeroed: channel {', '.join(map(str, spec['channels']))}, in the image tokens that enter "
                f"{spec['layer']}; weight {spec['weight']:g}.",
            }
        )
    return cards


def _card(question: str, evidence: xr.Dataset) -> dict[str, str]:
    return {"question": question, "verdict": evidence.attrs["verdict"], "reason": evidence.attrs["verdict_reason"]}


def _inline(figure: dict[str, Any]) -> dict[str, Any]:
    """A figure's picture as text, shown at one scale for all: 130 CSS pixels an inch, whatever its resolution."""
    content = Path(figure["png"]).read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        width = round(130 * picture.width / (picture.info.get("dpi") or (100, 100))[0])
    return {**figure, "png": base64.b64encode(content).decode(), "width": width}


def show(value: Any) -> str:
    """A table's cell: numbers with four significant digits, the rest as it is."""
    if isinstance(value, bool) or not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.4g}"
