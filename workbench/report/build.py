"""One self-contained HTML page about one recording: what was measured, on how much, with which verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from workbench.analysis.locate import locate
from workbench.analysis.locate import table as located_table
from workbench.analysis.modulation import modulation
from workbench.errors import SpecError, WorkbenchError
from workbench.figures import registry
from workbench.progress import Progress
from workbench.report.html import render
from workbench.report.sections import channels, guidance, provenance, states, the_recording, trajectory
from workbench.store import open_recording


def report(
    store: str | Path,
    out: str | Path,
    *,
    spec: Any = None,
    comparison: str | Path | None = None,
    criterion: str = "workbench",
    branch: str = "cond",
    progress: bool = True,
) -> Path:
    """Analyse a recording and write the report.

    Parameters
    ----------
    store : str or Path
        A recording.
    out : str or Path
        Folder for ``index.html``, ``numbers.json`` and ``figures/`` (PNG, PDF, CSV). Existing files of these names are
        replaced, others are left alone.
    spec : spec, mapping or path, optional
        A steering spec to show.
    comparison : path, optional
        Folder that ``workbench sample --compare`` wrote.
    criterion : str
        Criterion that decides which channels are massive.
    branch : str
        Branch to analyse.
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
    """
    recording = open_recording(store)
    out = Path(out)
    folder = out / "figures"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkbenchError(f"The report can't be written to {out}: {error}. Choose another --out.") from error
    given = _plain_spec(spec)
    _belongs(given, recording)
    if comparison is not None and not (Path(comparison) / "comparison.png").is_file():
        raise WorkbenchError(
            f"{comparison} holds no comparison.png; make it with `workbench sample … --compare --out {comparison}`."
        )
    evidence, drawn = draw_all(recording, folder, criterion=criterion, branch=branch, progress=progress)
    found, followed = evidence["locate"], evidence["modulation"]
    sections = [
        the_recording(recording, drawn),
        states(drawn),
        channels(found, drawn),
        trajectory(followed, drawn),
        *([guidance(given, comparison)] if given or comparison else []),
        provenance(recording),
    ]
    numbers = {
        "locate": {**found.attrs, "channels": located_table(found)},
        "modulation": dict(followed.attrs),
        "spec": given,
    }
    (out / "numbers.json").write_text(
        json.dumps(numbers, indent=1, sort_keys=True, ensure_ascii=False, default=_plain) + "\n", encoding="utf-8"
    )
    page = out / "index.html"
    page.write_text(render(recording, found, followed, given, sections), encoding="utf-8")
    return page


def draw_all(
    recording: xr.Dataset,
    folder: Path,
    *,
    criterion: str = "workbench",
    branch: str = "cond",
    progress: bool = True,
) -> tuple[dict[str, xr.Dataset], dict[str, dict[str, Any]]]:
    """Analyse a recording and draw every figure of the registry into a folder.

    Returns
    -------
    evidence : dict
        ``recording``, ``locate``, ``modulation``: what the figures are drawn from.
    drawn : dict
        Figure → its title, caption and files.
    """
    with Progress("analyses and figures", 2 + len(registry.FIGURES), progress) as bar:
        found = locate(recording, criterion=criterion, branch=branch)
        bar.advance()
        followed = modulation(recording, branch=branch)
        bar.advance()
        evidence = {"recording": recording, "locate": found, "modulation": followed}
        drawn = {
            name: _draw(name, entry, evidence, branch, folder, bar)
            for name, entry in registry.FIGURES.items()
            if not registry.missing(name, evidence[entry.needs])
        }
    return evidence, drawn


def _draw(
    name: str, entry: registry.Entry, evidence: Mapping[str, xr.Dataset], branch: str, folder: Path, bar: Progress
) -> dict[str, Any]:
    """Draw one figure into the folder; what the page needs to show it."""
    from workbench.figures.style import save

    module, data = registry.load(name), evidence[entry.needs]
    options: dict[str, Any] = dict(entry.options) | ({"branch": branch} if entry.needs == "recording" else {})
    table = module.data(data, **options)
    files = save(module.draw(data, **options), folder, name, data=table)
    bar.advance()
    return {
        "name": name,
        "needs": entry.needs,
        "title": entry.title,
        "caption": module.caption(data, **options),
        "png": folder / f"{name}.png",
        "files": [file.name for file in files],
    }


def _belongs(spec: dict[str, Any] | None, recording: xr.Dataset) -> None:
    """A spec of another model has no place in this report."""
    if spec is None:
        return
    ours, theirs = recording.attrs["model"], spec.get("model", {})
    if any(ours[key] != theirs.get(key) for key in ("transformer_class", "config_hash", "weight_hash")):
        raise SpecError(
            f"The spec is for another model ({theirs.get('transformer_class')}, weights {theirs.get('weight_hash')}) than "
            f"the recording ({ours['transformer_class']}, weights {ours['weight_hash']}). Derive one from this recording."
        )


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
