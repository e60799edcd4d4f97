"""Measured disruptions with a known answer, made without any image: what a model would give that loses this much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

MEASURES = {
    "edge_energy": "detail",
    "band_power_4": "detail",
    "band_power_5": "detail",
    "low_pass_similarity": "content",
    "recognised": "content",
    "spectral_distance": "distance",
}
NORMS = {"massive": 30.0, "random": 5.0, "matched_random": 30.0, "low": 0.5, "noise": 30.0}
SLIGHT = 0.02


class Truth(NamedTuple):
    """Mean loss of detail and of content, of 1 = the difference to another prompt's picture, at the layers concerned.

    Everywhere else, and with every kind not named, both are `SLIGHT`.
    """

    massive: tuple[float, float]
    equal_norm: tuple[float, float] = (SLIGHT, SLIGHT)
    equal_number: tuple[float, float] = (SLIGHT, SLIGHT)


TRUTHS = {
    "detail only": Truth((0.5, SLIGHT)),
    "content": Truth((SLIGHT, 0.5)),
    "detail and content": Truth((0.5, 0.5)),
    "nothing": Truth((SLIGHT, SLIGHT)),
    "nothing, while controls add detail": Truth((SLIGHT, SLIGHT), equal_norm=(-0.6, SLIGHT)),
    "as much as equal norm": Truth((0.5, 0.5), equal_norm=(0.5, 0.5)),
    "less than equal norm": Truth((0.3, 0.3), equal_norm=(0.7, 0.7)),
    "detail, with content as the controls": Truth((0.6, 0.4), equal_norm=(SLIGHT, 0.4), equal_number=(SLIGHT, 0.4)),
}
ANSWERS = {
    "detail only": "detail only",
    "content": "content",
    "detail and content": "detail and content",
    "nothing": "neither",
    "nothing, while controls add detail": "neither",
    "as much as equal norm": "neither",
    "less than equal norm": "neither",
    "detail, with content as the controls": "detail, and content no more than controls",
}


def simulated(
    truth: Truth | str = "detail only",
    *,
    prompts: int = 64,
    layers: int = 4,
    concerned: Sequence[int] = (1, 2),
    draws: int = 2,
    seeds: int = 1,
    seed: int = 0,
    norms: Mapping[str, float] = NORMS,
    windows: Sequence[str] = ("whole",),
) -> xr.Dataset:
    """Simulate what `workbench.sampling.disrupt` measures.

    How much a prompt loses is drawn from a skewed (gamma) distribution and shared by the kinds of a layer; changes of detail
    have noise of both signs, similarity can only fall, and a picture is recognised or not.
    """
    rng = np.random.default_rng(seed)
    chosen = TRUTHS[truth] if isinstance(truth, str) else truth
    n = prompts * seeds
    edge, band = np.exp(rng.normal(-3.0, 0.4, n)), rng.normal(4.0, 1.2, (2, n))
    known = (rng.random(n) < 0.97).astype(float)
    distance = rng.gamma(4.0, 0.25, n)
    plain_SM = np.stack([edge, *band, np.ones(n), known, distance], axis=1)
    swap = np.roll(np.arange(n), -seeds)
    similar = np.clip(rng.normal(0.2, 0.25, n), -1, 1)
    other_SM = np.stack([edge[swap], *band[:, swap], similar, np.zeros(n), distance[swap]], axis=1)
    scale_M = np.abs(other_SM - plain_SM).mean(axis=0)

    def disturbed(detail: float, content: float, share_SM: np.ndarray) -> np.ndarray:
        out = plain_SM.copy()
        for m in range(3):
            change = detail * share_SM[:, 0] + rng.normal(0, 0.15, n)
            out[:, m] -= scale_M[m] * change
        out[:, 3] = np.clip(1 - scale_M[3] * content * share_SM[:, 1] * rng.gamma(2.0, 0.5, n), -1, 1)
        out[:, 4] = known * (rng.random(n) > content * np.minimum(share_SM[:, 1], 1.5))
        out[:, 5] += scale_M[5] * (detail * share_SM[:, 0] + rng.normal(0, 0.1, n))
        return out

    rows: list[dict[str, Any]] = [{"kind": "none", "layer": "", "window": "", "draw": np.nan}]
    values, removed = [plain_SM], [np.full(n, np.nan)]
    for layer in range(layers):
        for window in windows:
            share_SM = rng.gamma(3.0, 1 / 3, (n, 2))
            for kind, norm in norms.items():
                group = {"massive": chosen.massive, "random": chosen.equal_number, "low": chosen.equal_number}
                loss = group.get(kind, chosen.equal_norm) if layer in concerned else (SLIGHT, SLIGHT)
                for draw in range(draws if kind in ("random", "matched_random", "noise") else 1):
                    rows.append(
                        {"kind": kind, "layer": f"transformer_blocks.{layer}", "window": window, "draw": float(draw)}
                    )
                    values.append(disturbed(*loss, share_SM))
                    removed.append(norm * rng.normal(1.0, 0.01, n))
    names = [
        "none" if row["kind"] == "none" else f"{row['layer']}-{row['window']}-{row['kind']}-{row['draw']:.0f}"
        for row in rows
    ]
    text = np.dtypes.StringDType()
    return xr.Dataset(
        {
            "value": (("condition", "sample", "measure"), np.stack(values)),
            "other": (("sample", "measure"), other_SM),
            "removed_norm": (("condition", "sample"), np.stack(removed)),
            "finite": (("condition", "sample"), np.ones((len(rows), n), dtype=bool)),
        },
        coords={
            "condition": np.asarray(names, dtype=text),
            **{
                key: ("condition", np.asarray([row[key] for row in rows], dtype=text))
                for key in ("kind", "layer", "window")
            },
            "draw": ("condition", np.asarray([row["draw"] for row in rows])),
            "coverage": (
                "condition",
                np.asarray([norms.get(row["kind"], np.nan) / norms.get("massive", np.nan) for row in rows]),
            ),
            "sample": np.arange(n),
            "prompt": ("sample", np.asarray([f"prompt {i // seeds}" for i in range(n)], dtype=text)),
            "seed": ("sample", np.arange(n) % seeds),
            "measure": np.asarray(list(MEASURES), dtype=text),
            "measure_kind": ("measure", np.asarray(list(MEASURES.values()), dtype=text)),
        },
        attrs={"omitted": []},
    )
