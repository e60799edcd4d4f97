"""Sections to HTML. Everything is inside the one file: style, figures as base64, no script, no address to load."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import xarray as xr
from PIL import Image

from workbench import __version__
from workbench.figures.preview import data_uri
from workbench.report.sections import Section, completed, lead, title
from workbench.report.video import steers


def render(
    evidence: Mapping[str, xr.Dataset],
    spec: dict[str, Any] | None,
    sections: Sequence[Section],
) -> str:
    """Render the page.

    Parameters
    ----------
    evidence : mapping
        ``recording``, and what each analysis returned, by its name.
    spec : dict, optional
        A steering spec.
    sections : sequence of Section
    """
    recording = evidence["recording"]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["show"] = show
    here = files("workbench.report")
    template = environment.from_string((here / "page.html.j2").read_text(encoding="utf-8"))
    complete, total = completed(recording), recording.sizes["sample"]
    return template.render(
        title=title(recording),
        lead=lead(recording),
        css=(here / "page.css").read_text(encoding="utf-8"),
        cards=cards(evidence, spec),
        incomplete=(
            f"The recording is not complete: {total - complete} of {total} samples are missing and were left out."
            if complete < total
            else ""
        ),
        sections=[
            section.__dict__
            | {"figures": [_inline(f) for f in section.figures], "previews": [_moving(p) for p in section.previews]}
            for section in sections
        ],
        footer=f"Written by dit-workbench {__version__} from {Path(recording.attrs['path']).name}, "
        f"settings fingerprint {recording.attrs['settings_fingerprint']}.",
    )


#: What each analysis answers, in the order of the page. The first of two with one question has the word.
QUESTIONS = {
    "locate": "Are there massive activations?",
    "causal": "Does the timestep embedding modulate them?",
    "modulation": "Does the timestep embedding modulate them?",
    "hierarchy": "Do they follow the video's frames?",
    "disruption": "What do they carry?",
    "sweep": "Does Detail Guidance add detail?",
    "stas": "Does STAS make the videos better?",
    "stas_choice": "Which setting of STAS is better than none?",
}


def cards(evidence: Mapping[str, xr.Dataset], spec: dict[str, Any] | None) -> list[dict[str, str]]:
    """Question, verdict and reason of every analysis that was made."""
    answered: dict[str, dict[str, str]] = {}
    for name, question in QUESTIONS.items():
        if name in evidence and question not in answered:
            attrs = evidence[name].attrs
            answered[question] = {
                "question": question,
                "verdict": attrs["verdict"],
                "reason": _brief(attrs),
            }
    if spec is not None and spec["method"] == "stas":
        question = "Is there a STAS spec?"
        answered[question] = {"question": question, "verdict": "derived", "reason": steers(spec)}
    elif spec is not None:
        question = "Is there a Detail Guidance spec?"
        answered[question] = {
            "question": question,
            "verdict": "derived",
            "reason": f"Zeroed: channel {', '.join(map(str, spec['channels']))}, in the image tokens that enter "
            f"{spec['layer']}; weight {spec['weight']:g}.",
        }
    return list(answered.values())


def _brief(attrs: Mapping[str, Any]) -> str:
    """The reason of a verdict; of the hierarchy, whose reason fills a paragraph, its first sentence."""
    reason = str(attrs["verdict_reason"])
    return reason.split(". ")[0].rstrip(".") + "." if "levels" in attrs else reason


def _weight(weight: float | dict[str, Any]) -> str:
    return "by a schedule" if isinstance(weight, dict) else f"{weight:g}"


def _inline(figure: dict[str, Any]) -> dict[str, Any]:
    """A figure's picture as text, shown at one scale for all: 130 CSS pixels an inch, whatever its resolution."""
    content = Path(figure["png"]).read_bytes()
    with Image.open(io.BytesIO(content)) as picture:
        width = round(130 * picture.width / (picture.info.get("dpi") or (100, 100))[0])
    return {**figure, "png": base64.b64encode(content).decode(), "width": width}


def _moving(preview: dict[str, Any]) -> dict[str, Any]:
    """A moving picture, and the still one for who asked for no motion, as addresses that hold them."""
    return preview | {
        "moving": data_uri(Path(preview["webp"]).read_bytes(), "webp"),
        "still": data_uri(Path(preview["png"]).read_bytes(), "png"),
    }


def show(value: Any) -> str:
    """A table's cell: numbers with four significant digits, the rest as it is."""
    if isinstance(value, bool) or not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.4g}"
