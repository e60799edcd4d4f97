"""Parts of a model card that both embedded models have."""

from __future__ import annotations

import json
from pathlib import Path


def front(task: str, architecture: str) -> str:
    """What a model hub reads of a card."""
    return f"""---
license: mit
library_name: diffusers
pipeline_tag: {task}
tags: [{architecture}, flow-matching, massive-activations, emoji, from-scratch]
---
"""


def ma_table(report: dict) -> str:
    """Rows of the ratio by noise level and block."""
    some = next(iter(report.values()))["ratio"]
    lines = ["| sigma | " + " | ".join(f"block {i}" for i in range(len(some))) + " |"]
    lines.append("|---" * (len(some) + 1) + "|")
    for sigma, row in report.items():
        cells = [f"{r:.1f} (ch {c})" for r, c in zip(row["ratio"], row["channel"], strict=True)]
        lines.append(f"| {sigma} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def judgement(judged: dict | None, prompts: list[str]) -> str:
    """The human verdict on the grid, if there is one."""
    if judged is None:
        return "The grid has not been judged by eye yet."
    yes = [p for p in prompts if judged["prompts"].get(p)]
    no = [p for p in prompts if p not in yes]
    text = f"By eye ({judged['by']}): **{len(yes)} of {len(prompts)} recognisable at a glance**"
    return text + (f"; not: {', '.join(no)}." if no else ".") + " " + judged.get("remark", "")


def bar_words(bar: dict) -> str:
    """Whether the bar of the ratio was met, and by how many blocks at each noise level."""
    over = ", ".join(f"{count} of {bar['blocks']} at sigma {s}" for s, count in bar["blocks_at_or_over"].items())
    met = "met" if bar["met"] else "missed"
    return f'Bar "ratio >= {bar["ratio"]:g} in at least half of the blocks": **{met}** ({over}).'


def top_channels(ma: dict) -> str:
    """Channels most often among the top three, and how often."""
    return ", ".join(f"{ch} ({count} of {ma['cells']})" for ch, count in ma["channels_in_top3"].items())


def by_timestep(ma: dict) -> str:
    """Largest ratio over blocks by the timestep that went into the embedding."""
    return "; ".join(f"t {t}: {max(ratios):.1f}" for t, ratios in ma["timestep_input_only"].items())


def largest_ratios(ma: dict) -> dict[str, float]:
    """Largest ratio over blocks and noise levels of every untrained twin."""
    return {name: max(max(row["ratio"]) for row in twin.values()) for name, twin in ma["random"].items()}


def decoder_words(training: dict) -> str:
    """How the autoencoder's decoder was sharpened, if it was."""
    last = training["decoder"]
    return f", then its decoder alone {last['step']:,} steps on slightly noisy latents" if last else ""


def versions(numbers: dict) -> str:
    """What computed."""
    return ", ".join(f"{name} {version}" for name, version in numbers["versions"].items())


def save_card(folder: Path, numbers: dict, card: str) -> None:
    """Write ``metrics.json`` and ``README.md``."""
    (folder / "metrics.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")
