"""The table of families, from their rows: what ``workbench models`` prints and ``docs/models.md`` holds."""

from __future__ import annotations

from typing import NamedTuple

from workbench.models.layout import MODULATIONS, Layout, Pipeline
from workbench.models.preset import STANDINGS, Preset
from workbench.models.presets import PRESETS
from workbench.models.rows import FAMILIES, REFUSED


class Line(NamedTuple):
    """One family, in words.

    Attributes
    ----------
    family, title, transformer : str
        As in the row; the class without its module.
    pipelines : str
        Stock pipelines that the row was checked with.
    blocks : str
        Lists of blocks in order of execution, with the place of the image tokens where other tokens stand beside them.
    modulation : str
        Kind, and the parts that there are.
    guidance : str
        How the branches are run.
    detail_guidance, stas : str
        ``"yes"``, or why not.
    """

    family: str
    title: str
    transformer: str
    pipelines: str
    blocks: str
    modulation: str
    guidance: str
    detail_guidance: str
    stas: str


def lines() -> list[Line]:
    """All families, in the order of their rows."""
    return [_line(row) for row in FAMILIES]


def _line(row: Layout) -> Line:
    modulation = row.modulation
    return Line(
        row.family,
        row.title,
        row.transformer.rsplit(".", 1)[1],
        ", ".join(f"{p.name} (from {p.condition})" if p.condition else p.name for p in row.pipelines),
        " → ".join(
            s.path if s.image == "all" else f"{s.path} (image tokens {s.image.replace('_', ' ')})" for s in row.stacks
        ),
        modulation.kind if modulation.terms else f"none: {modulation.why}",
        "; ".join(dict.fromkeys(guidance_words(pipeline) for pipeline in row.pipelines)),
        _each(row, lambda p: "yes" if p.guidance is None or p.guidance.linear else f"no: {p.guidance.why}"),
        _each(row, lambda p: _stas(row, p)),
    )


def _stas(row: Layout, pipeline: Pipeline) -> str:
    if not row.is_video or pipeline.still:
        return "no: no frames"
    return f"no: the first frame is {pipeline.first}" if pipeline.first else "yes"


def _each(row: Layout, said: object) -> str:
    """What holds of the pipelines: one word if it is the same for all, else one each."""
    words = {p.name: said(p) for p in row.pipelines}  # type: ignore[operator]
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{name}: {word}" for name, word in words.items())


def guidance_words(pipeline: Pipeline) -> str:
    """How a pipeline runs its branches."""
    guidance = pipeline.guidance
    if guidance is None:
        return "embedded scale" if pipeline.scale else "none"
    return f"one call of {' + '.join(guidance.rows)}" if guidance.batched else f"calls {', '.join(guidance.rows)}"


def _preset_row(preset: Preset) -> str:
    frames = f"{preset.frames} × " if preset.frames > 1 else ""
    cells = (
        f"`{preset.name}`",
        f"`{preset.hub}`",
        preset.family,
        f"{preset.published:g}" + (f" × {preset.experts}" if preset.experts > 1 else ""),
        f"{frames}{preset.height} × {preset.width}, {preset.steps} steps",
        preset.source,
        "; ".join(f"{fact.about}: {fact.says} [{fact.standing}, {fact.source}]" for fact in preset.facts),
    )
    return f"| {' | '.join(cells)} |"


def _presets() -> list[str]:
    """The table of presets."""
    head = ("preset", "hub", "family", "10⁹ parameters", "default", "configuration", "said of its massive activations")
    return [
        "## Presets",
        "",
        'The papers\' models, by short names: `load_pipeline("sd3-medium")` and every verb take them for their ids on the hub, and',
        "`workbench models sd3-medium` says what a run takes, without a download. The rows are in `workbench/models/presets.py`;",
        "every transformer is built at this configuration, and its pipeline runs in small, in `tests/models/test_presets.py`. What",
        "is said of massive activations is a hypothesis to hold a recording against. How well each is established:",
        "",
        *(f"* `{tag}`: {meaning}" for tag, meaning in STANDINGS.items()),
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *map(_preset_row, PRESETS.values()),
        "",
    ]


def markdown() -> str:
    """The page ``docs/models.md``."""
    head = ("family", "class", "pipelines", "blocks", "modulation", "branches", "Detail Guidance", "STAS")
    rows = [
        f"| {line.family} ({line.title}) | `{line.transformer}` | {line.pipelines} | {line.blocks} | {line.modulation} | "
        f"{line.guidance} | {line.detail_guidance} | {line.stas} |"
        for line in lines()
    ]
    refused = [f"| `{name.rsplit('.', 1)[1]}` | {why} |" for name, why in REFUSED.items()]
    kinds = [f"* `{kind}`: {meaning}" for kind, meaning in MODULATIONS.items()]
    return "\n".join(
        [
            "# Models",
            "",
            f"{len(FAMILIES)} transformer classes of diffusers 0.42 are recorded, and steered where the table says so; {len(REFUSED)} are refused.",
            "This page is made from the rows in `workbench/models/rows` (`workbench models` prints the same), and every row is held",
            "against a tiny model of its class that generates through its own stock pipeline (`tests/families`): the recorded states",
            "are those of PyTorch's own hooks bit for bit, the token grid is the one known by hand, calls and branches are counted,",
            "Detail Guidance is its formula, and STAS changes just the entries that it may. No checkpoint of these models was at hand:",
            "whether massive activations show in one, a recording of it says.",
            "",
            "Modulation of the image stream by the timestep:",
            "",
            *kinds,
            "",
            f"| {' | '.join(head)} |",
            "|" + "---|" * len(head),
            *rows,
            "",
            *_presets(),
            "## Refused",
            "",
            "| class | why |",
            "|---|---|",
            *refused,
            "",
        ]
    )


if __name__ == "__main__":
    print(markdown(), end="")
