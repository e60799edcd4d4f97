"""The same sections as Markdown, for a page of documentation that links its figures instead of holding them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.report.html import show
from workbench.report.sections import Section


def markdown(title: str, lead: str, cards: Sequence[dict[str, str]], sections: Sequence[Section], page: Path) -> str:
    """Render a page.

    Parameters
    ----------
    title, lead : str
        Heading and first paragraph.
    cards : sequence of dict
        Question, verdict and reason; see `workbench.report.html.cards`.
    sections : sequence of Section
    page : Path
        Where the text will be, from which the figures are linked.
    """
    parts = [f"# {title}", lead, _table(["question", "verdict", "because"], [_card(card) for card in cards])]
    for section in sections:
        parts += [f"## {section.title}", section.text]
        for table in section.tables:
            parts += [table["caption"], _table(table["head"], table["rows"])]
        for preview in section.previews:
            link = Path(os.path.relpath(preview["webp"], page.parent)).as_posix()
            parts += [
                f"![{preview['alt']}]({link})",
                f"**{preview['title']}** ({' | '.join(preview['labels'])}). {preview['caption']}",
            ]
        for figure in section.figures:
            link = Path(os.path.relpath(figure["png"], page.parent)).as_posix()
            parts += [f"![{figure['title']}]({link})", f"**{figure['title']}.** {figure['caption']}"]
        for block in section.details:
            parts.append(f"<details><summary>{block['title']}</summary>\n\n```json\n{block['text']}\n```\n\n</details>")
    return "\n\n".join(part for part in parts if part) + "\n"


def _card(card: dict[str, str]) -> list[str]:
    return [card["question"], f"**{card['verdict']}**", card["reason"]]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [list(head), ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return show(value).replace("|", "\\|").replace("\n", " ")
