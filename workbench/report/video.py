"""Sections about videos: profile over the tokens, frame hierarchy, STAS with what it does; and moving pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis.clip_distance import DISTRIBUTION
from workbench.analysis.stas_rule import MOTION
from workbench.errors import WorkbenchError
from workbench.figures import frame_strip, preview
from workbench.figures.hierarchy_map import minus
from workbench.figures.style import listed, save
from workbench.report.comparison import Clip, clips_of, shown_modes
from workbench.report.sections import Drawn, Section, add_comparison, pretty
from workbench.report.trials import number, three

MOST = 6
"""Moving pictures in a section: they are all in the one file."""

BYTES = 100_000
"""Largest of them in bytes."""

_MEASURES = {
    "temporal_flicker": "flicker",
    "motion_smoothness": "smoothness",
    "frame_consistency": "consistency",
    "first_frame_sharpness": "first-frame sharpness",
    "own_clip_distance": "distance to own clip",
    DISTRIBUTION: "distance to all clips",
    MOTION: "slow change",
}


def is_video(recording: xr.Dataset) -> bool:
    """Whether a recording is of videos: of more than one latent frame."""
    return "frame" in recording.coords and int(recording["frame"].max()) > 0


def moving(video: np.ndarray, stem: Path, *, title: str, labels: Sequence[str], alt: str) -> dict[str, Any]:
    """Write an animation and its first frame; what the page needs to show it."""
    made = preview.write(video, stem, most=BYTES)
    width = preview.SHOWN * max(len(labels), 1)
    return {
        "title": title,
        "labels": list(labels),
        "alt": alt,
        "caption": "" if made.quality is None else f"{made.words}.",
        "webp": stem.with_suffix(".webp"),
        "png": stem.with_suffix(".png"),
        "width": width,
    }


def recorded(recording: xr.Dataset, folder: Path) -> list[dict[str, Any]]:
    """Moving pictures of the first complete samples of a recording, written into a folder; none of images."""
    if "image" not in recording or "video_frame" not in recording["image"].dims:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for k, i in enumerate(np.flatnonzero(recording["sample_checksum"].values != 0)[:MOST]):
        video = recording["image"].isel(sample=int(i)).transpose("video_frame", "y", "x", "rgb").values
        prompt, seed = str(recording["prompt"].values[i]), int(recording["seed"].values[i])
        alt = f"Animation of {len(video)} frames, generated for the prompt “{prompt}” with seed {seed}."
        found.append(moving(video, folder / f"recorded_{k}", title=prompt, labels=[f"seed {seed}"], alt=alt))
    return found


def profile_section(result: xr.Dataset, drawn: Drawn) -> Section:
    """Where in a frame's run |h| is raised, and the boundary width that follows."""
    proposed = int(result.attrs["proposed_width"])
    width = f"{proposed} tokens" if proposed else "none"
    return Section(
        "profile",
        "How wide is the boundary?",
        f"{result.attrs['verdict_reason']} Proposed width: {width}; used in this report: {result.attrs['boundary_width']} tokens "
        f"({result.attrs['boundary_width_source']}).",
        figures=[f for f in drawn.values() if f["needs"] == "profile"],
    )


def hierarchy_section(result: xr.Dataset, drawn: Drawn) -> Section:
    """First frame, boundary, interior: which levels hold."""
    rows = []
    for name in map(str, result["contrast"].values):
        at = result.sel(contrast=name)
        if not np.isfinite(float(at["overall"])):
            continue
        rows.append(
            [
                minus(name),
                str(at["contrast_verdict"].values),
                three(at, "overall", signed=True),
                three(at, "control", signed=True) if result.sizes["control_channel"] else "–",
                number(at["overall_p_corrected"]),
                three(at, "early_minus_late", signed=True),
            ]
        )
    table = {
        "caption": "Differences of ln mean |h| (0.1 is about a tenth), with intervals over "
        f"{result.attrs['replicate']}s, of the massive and of ordinary channels; p corrected for the contrasts that decide; early − late: "
        "the first half of the steps minus the last. Contrasts that are not judged stand beside the others.",
        "head": ["contrast", "verdict", "massive", "ordinary", "p", "early − late"],
        "rows": rows,
        "brief": [0, 1, 2, 3],
    }
    confound = f" Confound: {result.attrs['confound']}." if result.attrs["confound"] else ""
    return Section(
        "hierarchy",
        "Do they follow the video's frames?",
        f"Levels found: {result.attrs['levels']}. {result.attrs['verdict_reason']}{confound}",
        [table],
        [f for f in drawn.values() if f["needs"] == "hierarchy"],
    )


#: Evidence → its section, in the order of the page.
ANALYSED = {"profile": profile_section, "hierarchy": hierarchy_section}


def stas_section(
    spec: Mapping[str, Any] | None,
    comparison: Path | None,
    trial: xr.Dataset | None,
    drawn: Drawn,
    out: Path,
) -> Section:
    """STAS: the spec, videos with it beside those without, and what a trial measured.

    Parameters
    ----------
    spec : mapping, optional
        As JSON.
    comparison : Path, optional
        Folder that ``workbench sample --compare`` wrote.
    trial : xr.Dataset, optional
        What `workbench.analysis.stas.stas` returned.
    drawn : dict
        Figures.
    out : Path
        Folder of the report: animations go into ``previews/``, the strip into ``figures/``.
    """
    said = [
        "h ← α · max|h| · sign(h), in the state that leaves a block, at the massive channels of first-frame and boundary tokens; the "
        "maximum is over all video tokens of the sample. No pass of the model is added."
    ]
    section = Section("stas", "STAS", "")
    if spec is not None:
        said.append(steers(spec))
        section.tables.append(_sources(spec))
        section.details.append({"title": "The spec", "text": pretty(dict(spec))})
    if trial is not None:
        said.append(f"Against the videos without it: {trial.attrs['verdict']}; {trial.attrs['verdict_reason']}.")
        section.tables.append(effects(trial))
    if comparison is not None:
        add_comparison(section, comparison)
        _compared(section, comparison, out)
    section.figures += [f for f in drawn.values() if f["needs"] == "stas"]
    section.text = " ".join(part for part in said if part)
    return section


def steers(spec: Mapping[str, Any]) -> str:
    """What a spec of STAS does, in a sentence."""
    alphas = {role: spec.get(f"alpha_{role}") for role in ("first", "boundary", "interior")}
    roles = ", ".join(f"{role} α = {alpha:g}" for role, alpha in alphas.items() if alpha is not None)
    window, width = spec["window"], spec["boundary_width"]
    unit = {"sigma": "σ", "step_fraction": "share of the steps"}.get(str(window["unit"]), str(window["unit"]))
    done = {"steer": "Steered", "scale": "Scaled", "zero": "Zeroed"}[str(spec["action"])]
    return (
        f"{done}: channel {listed(list(spec['channels']))} of the state that leaves {listed(list(spec['layers']))}; {roles}; boundary "
        f"of {_width(width)}; {unit} from {window['low']:.3g} to {window['high']:.3g}; branches "
        f"{' and '.join(spec['branches'])}; reference {spec['reference']}."
    )


def _width(width: Mapping[str, Any]) -> str:
    """A boundary width in words."""
    unit = "of a frame's tokens" if width["unit"] == "fraction" else width["unit"]
    return f"{width['value']:.3g} {unit}"


def _sources(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Where each choice of the spec comes from."""
    sources = dict((spec.get("recommended") or {}).get("source") or {})
    return {
        "caption": "Where each choice of the spec comes from.",
        "head": ["choice", "from"],
        "rows": [[name.replace("_", " "), source] for name, source in sources.items()],
    }


def effects(trial: xr.Dataset) -> dict[str, Any]:
    """Contrasts down, measures across: the means of plain, else the paired differences."""
    measures = [name for name in _MEASURES if name in trial["measure"].values]
    plain = str(trial["condition"].values[trial["role"].values == "baseline"][0])
    rows = [[plain, "", *(number(trial["mean"].sel(condition=plain, measure=m)) for m in measures)]]
    for c, name in enumerate(map(str, trial["contrast"].values)):
        at = trial.isel(contrast=c)
        rows.append([name, str(at["verdict"].values), *(_difference(at.sel(measure=m)) for m in measures)])
    return {
        "caption": f"In the first row the means of the videos without STAS, below mean paired differences with intervals over "
        f"{trial.attrs['replicate']}s ({trial.attrs['replication']}), not corrected for their number; the words are. The rule: "
        f"{trial.attrs['rule']}",
        "head": ["contrast", "verdict", *(_MEASURES[name] for name in measures)],
        "rows": rows,
        "brief": [0, 1, *range(2, 2 + min(len(measures), 3))],
    }


def _difference(cell: xr.Dataset) -> str:
    """A difference with its interval and what it shows."""
    middle, low, high = (float(cell[name]) for name in ("difference", "low", "high"))
    if not np.isfinite(middle):
        return "–"
    if not np.isfinite(low):
        return f"{middle:+.2g} (n too small)"
    return f"{middle:+.2g} [{low:+.2g}, {high:+.2g}] {cell['finding'].values}"


def _compared(section: Section, folder: Path, out: Path) -> None:
    """Add animations side by side and a strip of frames of a comparison; nothing where it is of images."""
    clips = clips_of(folder)
    if not clips:
        return
    modes = shown_modes(clips)
    samples: dict[tuple[str, int], dict[str, Clip]] = {}
    for clip in clips:
        samples.setdefault((clip.prompt, clip.seed), {})[clip.mode] = clip
    spread = np.linspace(0, len(samples) - 1, min(MOST, len(samples))).round().astype(int)
    chosen = [list(samples.items())[i] for i in sorted(set(spread.tolist()))]
    place = out / "previews"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkbenchError(f"The previews can't be written to {place}: {error}. Choose another --out.") from error
    videos, labels, groups = [], [], []
    for k, ((prompt, seed), by_mode) in enumerate(chosen):
        pair = [by_mode[mode] for mode in modes]
        names = [clip.label for clip in pair]
        alt = f"Animations side by side, generated for the prompt “{prompt}” from the same noise (seed {seed}): {', '.join(names)}."
        joined = preview.side_by_side([clip.video for clip in pair])
        section.previews.append(
            moving(joined, place / f"steered_{k}", title=f"{prompt}, seed {seed}", labels=names, alt=alt)
        )
        if k < 4:
            videos += [clip.video for clip in pair]
            labels += names
            groups += [f"{prompt}\nseed {seed}"] * len(pair)
    strip = frame_strip.strip(videos, labels, groups=groups, fps=preview.RATE, latent_frames=_latents(len(videos[0])))
    files = save(strip, out / "figures", "steered_strip", dpi=frame_strip.DPI)
    # In place of the sampler's own picture: this one has the seconds and the latent frames.
    for figure in section.figures:
        figure["png"] = files[1]
        figure["files"] = [file.name for file in files]
        figure["title"] = "The same seeds without and with STAS, frame by frame"


def _latents(frames: int) -> int | None:
    """Latent frames of a video where four frames are one, but the first (as the Wan VAE has it)."""
    return 1 + (frames - 1) // 4 if frames > 1 and (frames - 1) % 4 == 0 else None
