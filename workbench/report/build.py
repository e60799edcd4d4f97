"""One self-contained HTML page about one recording: what was measured, on how much, with which verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from workbench.analysis.locate import locate
from workbench.analysis.locate import table as located_table
from workbench.analysis.modulation import modulation
from workbench.analysis.same_model import same_model
from workbench.errors import SpecError, WorkbenchError
from workbench.figures import registry
from workbench.progress import Progress
from workbench.report.choice import choice_section
from workbench.report.html import cards, render
from workbench.report.markdown import markdown
from workbench.report.sections import (
    Section,
    channels,
    guidance,
    lead,
    provenance,
    states,
    the_recording,
    title,
    trajectory,
)
from workbench.report.trials import TRIED
from workbench.report.tried import Given, of_videos, tried
from workbench.report.video import ANALYSED, is_video, recorded, stas_section
from workbench.store import open_recording


def report(
    store: str | Path,
    out: str | Path,
    *,
    experiments: Sequence[Given] = (),
    disrupted: Given | None = None,
    swept: Given | None = None,
    baselines: Given | None = None,
    stas: Given | None = None,
    spec: Any = None,
    comparison: str | Path | None = None,
    criterion: str = "workbench",
    branch: str = "cond",
    page: str | Path | None = None,
    note: str = "",
    progress: bool = True,
) -> Path:
    """Analyse a recording, and what was tried out on its model, and write the report.

    Parameters
    ----------
    store : str or Path
        A recording.
    out : str or Path
        Folder for ``index.html``, ``numbers.json`` and ``figures/`` (PNG, PDF, CSV). Existing files of these names are
        replaced, others are left alone.
    experiments : sequence of path or Dataset, optional
        Swap experiments of the same model, from ``workbench record --experiment``.
    disrupted, swept, baselines, stas : path or Dataset, optional
        What `workbench.disrupt`, `workbench.sweep`, `workbench.baselines` and `workbench.stas_trial` measured.
    spec : spec, mapping or path, optional
        A steering spec to show.
    comparison : path, optional
        Folder that ``workbench sample --compare`` wrote.
    criterion : str
        Criterion that decides which channels are massive.
    branch : str
        Branch to analyse.
    page : path, optional
        Also write the report as Markdown here; it links the figures in `out`.
    note : str
        Markdown to stand below the page's first sentence, such as the command that makes it again.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        ``index.html``. The same recording gives the same numbers, byte for byte.

    Raises
    ------
    StoreError, AnalysisError
        If the recording can't be opened or analysed.
    WorkbenchError
        If something is of another model than the recording.
    """
    recording = open_recording(store)
    out = Path(out)
    folder = out / "figures"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkbenchError(f"The report can't be written to {out}: {error}. Choose another --out.") from error
    given = _plain_spec(spec)
    if given is not None:
        same_model(given, recording, "the spec", error=SpecError)
    if comparison is not None and not (Path(comparison) / "comparison.png").is_file():
        raise WorkbenchError(
            f"{comparison} holds no comparison.png; make it with `workbench sample … --compare --out {comparison}`."
        )
    evidence, drawn = draw_all(
        recording, folder, experiments=experiments, disrupted=disrupted, swept=swept, baselines=baselines, stas=stas,
        criterion=criterion, branch=branch, progress=progress,
    )  # fmt: skip
    sections = [
        the_recording(recording, drawn, recorded(recording, out / "previews")),
        states(drawn),
        channels(evidence["locate"], drawn),
        trajectory(evidence["modulation"], drawn),
        *(section(evidence[name], drawn) for name, section in (ANALYSED | TRIED).items() if name in evidence),
        *_steered(recording, given, comparison, evidence.get("stas"), drawn, out),
        *([choice_section(evidence["stas_choice"])] if "stas_choice" in evidence else []),
        provenance(recording),
    ]
    numbers: dict[str, Any] = {name: dict(result.attrs) for name, result in evidence.items() if name != "recording"}
    numbers["locate"]["channels"] = located_table(evidence["locate"])
    numbers["spec"] = given
    (out / "numbers.json").write_text(
        json.dumps(numbers, indent=1, sort_keys=True, ensure_ascii=False, default=_plain) + "\n", encoding="utf-8"
    )
    html = out / "index.html"
    html.write_text(render(evidence, given, sections), encoding="utf-8")
    if page is not None:
        Path(page).write_text(
            markdown(
                title(recording), f"{lead(recording)}\n\n{note}".strip(), cards(evidence, given), sections, Path(page)
            ),
            encoding="utf-8",
        )
    return html


def draw_all(
    recording: xr.Dataset,
    folder: Path,
    *,
    experiments: Sequence[Given] = (),
    disrupted: Given | None = None,
    swept: Given | None = None,
    baselines: Given | None = None,
    stas: Given | None = None,
    criterion: str = "workbench",
    branch: str = "cond",
    progress: bool = True,
) -> tuple[dict[str, xr.Dataset], dict[str, dict[str, Any]]]:
    """Analyse a recording, and what was tried out on its model, and draw every figure of it into a folder.

    Parameters
    ----------
    recording : xr.Dataset
    folder : Path
    experiments, disrupted, swept, baselines, stas, criterion, branch, progress
        As `report` takes them.

    Returns
    -------
    evidence : dict
        ``recording``, ``locate``, ``modulation``; of videos with their hidden states ``profile`` and ``hierarchy``; and, where
        given, ``causal``, ``disruption``, ``sweep``, ``baselines``, ``stas``, ``stas_choice``: what the figures are drawn from.
    drawn : dict
        Figure → its title, caption and files.
    """
    with Progress("analyses and figures", 2 + len(registry.FIGURES), progress) as bar:
        found = locate(recording, criterion=criterion, branch=branch)
        bar.advance()
        evidence = {"recording": recording, "locate": found, "modulation": modulation(recording, branch=branch)}
        evidence |= of_videos(recording, found, branch=branch)
        evidence |= tried(
            recording,
            found,
            experiments=experiments,
            disrupted=disrupted,
            swept=swept,
            baselines=baselines,
            stas=stas,
            branch=branch,
        )
        bar.advance()
        drawn = {
            name: _draw(name, entry, evidence, branch, folder, bar)
            for name, entry in registry.FIGURES.items()
            if entry.needs in evidence and not registry.missing(name, evidence[entry.needs])
        }
    return evidence, drawn


def _steered(
    recording: xr.Dataset,
    spec: dict[str, Any] | None,
    comparison: str | Path | None,
    trial: xr.Dataset | None,
    drawn: Mapping[str, Any],
    out: Path,
) -> list[Section]:
    """The section of the spec: of Detail Guidance or of STAS, whichever it is of; of neither where there is nothing."""
    if spec is None and comparison is None and trial is None:
        return []
    method = spec["method"] if spec is not None else "stas" if is_video(recording) else "detail_guidance"
    if method == "stas":
        return [stas_section(spec, None if comparison is None else Path(comparison), trial, dict(drawn), out)]
    return [guidance(spec, comparison)]


def _draw(
    name: str, entry: registry.Entry, evidence: Mapping[str, xr.Dataset], branch: str, folder: Path, bar: Progress
) -> dict[str, Any]:
    """Draw one figure into the folder; what the page needs to show it."""
    from workbench.figures.style import save

    module, data = registry.load(name), evidence[entry.needs]
    options: dict[str, Any] = dict(entry.options) | ({"branch": branch} if entry.needs == "recording" else {})
    table = module.data(data, **options)
    files = save(module.draw(data, **options), folder, name, data=table, dpi=getattr(module, "DPI", None))
    bar.advance()
    return {
        "name": name,
        "needs": entry.needs,
        "title": entry.title,
        "caption": module.caption(data, **options),
        "png": folder / f"{name}.png",
        "files": [file.name for file in files],
    }


def _plain_spec(spec: Any) -> dict[str, Any] | None:
    if spec is None or isinstance(spec, Mapping):
        return None if spec is None else dict(spec)
    if hasattr(spec, "model_dump"):
        return dict(spec.model_dump(mode="json"))
    try:
        return dict(json.loads(Path(spec).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise WorkbenchError(f"The spec {spec} can't be read: {error}.") from error


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
