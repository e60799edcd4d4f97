"""Band power of the training pictures as a reference, how good the measures are, and docs/measures.md.

    python -m benchmarks.measures [--work FOLDER]        about 1 minute; the folder of `python -m workbench.models.mini`
    python -m benchmarks.measures --text-only            only writes the page anew, from benchmarks/measures.json
                                                         and benchmarks/video_measures.json

Needs the data set (`python -m workbench.models.mini fetch`) and the judge.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np

from benchmarks import video_measures
from workbench.models.mini import JUDGES, data
from workbench.models.mini.judge_card import curve_rows, reading, write_prompts
from workbench.sampling import measures as m
from workbench.sampling.semantic import REFERENCE
from workbench.sampling.spectrum import BAND_EDGES, POWER_FLOOR, Reference, power_by_band

ROOT = Path(__file__).parents[1]
NUMBERS, PAGE = Path(__file__).with_suffix(".json"), ROOT / "docs" / "measures.md"
TONES = (0.045, 0.09, 0.18, 0.35)
BLURS = (0.5, 1.0, 2.0)
NOISES = (0.02, 0.05, 0.1)
SHIFT = (4, -3)


def windowed_power(y_YX: np.ndarray) -> np.ndarray:
    """Power by band with a Hann window instead of mirrored borders: what the page compares with."""
    window = np.outer(*(np.hanning(size) for size in y_YX.shape))
    centred = (y_YX - (window * y_YX).sum() / window.sum()) * window
    power = np.abs(np.fft.fft2(centred)) ** 2 / (y_YX.size * (window**2).sum())
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(size) for size in y_YX.shape), indexing="ij"))
    return np.array([power[(radius > a) & (radius <= b)].sum() for a, b in itertools.pairwise(BAND_EDGES)])


def moved(image: np.ndarray) -> np.ndarray:
    """Shift by `SHIFT` pixels; white comes in."""
    (dy, dx), size = SHIFT, image.shape[0]
    padded = np.pad(image, ((8, 8), (8, 8), (0, 0)), constant_values=255)
    return padded[8 + dy : 8 + dy + size, 8 + dx : 8 + dx + size]


def leakage() -> list[list[float]]:
    """Largest share of a tone's power outside its band and its neighbours, over phases; mirrored, then windowed."""
    rows = []
    for frequency in TONES:
        worst = []
        for power in (power_by_band, windowed_power):
            shares = []
            for phase in np.arange(0, np.pi, 0.3):
                tone = 0.4 * np.sin(2 * np.pi * frequency * np.arange(64) + phase)
                found = power(np.broadcast_to(tone, (64, 64)))
                band = int(np.searchsorted(BAND_EDGES, frequency)) - 1
                shares.append(1 - found[band] / found.sum())
            worst.append(max(shares))
        rows.append([frequency, *worst])
    return rows


def log_power(pixels: np.ndarray, power) -> np.ndarray:
    """Ln of `power` of every picture, floored as `band_power` is."""
    return np.log(np.maximum([power(m.luma(image)) for image in pixels], POWER_FLOOR))


def run(work: Path) -> dict:
    """Write the reference; return the numbers of the page."""
    pixels, captions, _ = data.build(work)
    folder = JUDGES["mini-image"]
    folder.mkdir(exist_ok=True)
    write_prompts(folder, work)
    source = f"{data.PICTURES} on white, {data.SIZE} px: all {len(pixels)} training pictures of mini-image"
    Reference.of(pixels, captions, source).save(folder / REFERENCE)
    reference = Reference.read(folder / REFERENCE)
    shifted = np.stack([moved(image) for image in pixels])
    invariance = {}
    for name, power in (("mirrored", power_by_band), ("windowed", windowed_power)):
        here, there = log_power(pixels, power), log_power(shifted, power)
        change = np.sqrt(((here - there) ** 2).mean(0))
        invariance[name] = {"spread": here.std(0, ddof=1).tolist(), "shift": change.tolist()}
    some = np.random.default_rng(0).choice(len(pixels), 256, replace=False)
    rng = np.random.default_rng(1)
    rows = {}
    changes = {"none": lambda x: x}
    changes |= {f"blur {s:g} px": lambda x, s=s: m.blur(x, s) for s in BLURS}
    changes |= {f"noise sd {s:g}": lambda x, s=s: np.clip(x + s * rng.standard_normal(x.shape), 0, 1) for s in NOISES}
    changes["moved 4, 3 px"] = lambda x: moved((x * 255).astype(np.uint8)) / 255
    for name, change in changes.items():
        made = np.stack([change(pixels[i] / 255) for i in some])
        found = m.image_measures(made, [captions[i] for i in some], plain_SYX3=pixels[some] / 255, reference=reference)
        rows[name] = {key: float(np.mean(found[key])) for key in found}
    return {"pictures": len(pixels), "some": len(some), "mean": reference.mean.tolist(), "spread": reference.spread.tolist(),
            "source": reference.source, "leakage": leakage(), "invariance": invariance, "changes": rows}  # fmt: skip


def page(n: dict) -> str:
    """Text of docs/measures.md."""
    table = ["| measure | kind | unit | what it is | source |", "|---|---|---|---|---|"]
    table += [
        f"| `{name}` | {r.kind} | {r.unit or '–'} | {r.label}: {r.equation} | {r.source} |"
        for name, r in m.TABLE.items()
    ]
    bands = [f"| {k} | {_band(k)} | {n['mean'][k]:.2f} | {n['spread'][k]:.2f} | {n['invariance']['mirrored']['shift'][k]:.2f} | "
             f"{n['invariance']['windowed']['spread'][k]:.2f} | {n['invariance']['windowed']['shift'][k]:.2f} |" for k in range(m.BANDS)]  # fmt: skip
    leaks = [f"| {f:g} | {100 * a:.1f} | {100 * b:.1f} |" for f, a, b in n["leakage"]]
    shown = ("edge_energy", *(f"band_power_{k}" for k in range(m.BANDS)), "high_frequency_share", "spectral_distance",
             "own_spectral_distance", "low_pass_similarity")  # fmt: skip
    head = "| disturbance | " + " | ".join(f"`{name}`" for name in shown) + " |\n|---|" + "---:|" * len(shown)
    rows = [
        f"| {name} | " + " | ".join(f"{row[key]:.3g}" for key in shown) + " |" for name, row in n["changes"].items()
    ]
    judge = JUDGES["mini-image"] / "metrics.json"
    known = json.loads(judge.read_text(encoding="utf-8")) if judge.is_file() else None
    return TEXT.format(
        table="\n".join(table), bands="\n".join(bands), leaks="\n".join(leaks), head=head, rows="\n".join(rows),
        pictures=n["pictures"], some=n["some"], source=n["source"], floor=POWER_FLOOR, shift=f"{SHIFT[0]} and {-SHIFT[1]}",
        real=n["changes"]["none"]["spectral_distance"], judge=_judge(known), reading=f"How to read it: {reading(known)} " if known else "",
        video=video_measures.section(json.loads(video_measures.NUMBERS.read_text(encoding="utf-8"))),
    )  # fmt: skip


def _band(k: int) -> str:
    low, high = (f"1/{round(1 / e)}" if 0 < e < 1 else ("0" if e == 0 else "corner") for e in BAND_EDGES[k : k + 2])
    return f"{low} to {high}"


def _judge(n: dict | None) -> str:
    if n is None:
        return "There is no judge yet."
    g = n["generated"]
    return (
        f"On training pictures with the random disturbances of its training (other seeds) it is right for "
        f"{100 * n['held_out']['recognised']:.1f} % of {n['held_out']['n']}, on what mini-image draws for the study prompts for "
        f"{100 * g['plain_study']['recognised']:.1f} % (no guidance) and {100 * g['cfg_study']['recognised']:.1f} % (guidance {g['guidance']:g}); for another "
        f"picture's prompt it says yes to {100 * g['plain_study']['mismatched']['recognised']:.1f} %. Disturbed by one thing at a time, "
        f"{n['curve_pictures']} training pictures drawn at random:\n\n{curve_rows(n['curves'])}"
    )


TEXT = """# Measures of an image, and of a video

Written by `python -m benchmarks.measures` from `workbench.sampling.measures.TABLE`, `benchmarks/measures.json` and the judge's
`metrics.json`; don't edit it by hand.

```python
from workbench.sampling.measures import KINDS, TABLE, image_measures, omitted
from workbench.sampling.semantic import load_clip, load_judge, load_reference, study_prompts

judge, reference = load_judge("mini-image"), load_reference("mini-image")
numbers = image_measures(images, prompts, plain_SYX3=plain, judge=judge, reference=reference, clip=load_clip())
```

One array a measure, NaN where a sample can't have it (a prompt that is no class of the judge, values that are not finite,
another size than the reference's). A measure that needs a part that is not given is left out, and `omitted` says why. No
measure depends on the other images of a batch. Nothing is downloaded: CLIP only if its weights are on the disk.

{table}

A higher *detail* is more detail, not better detail: noise has much of it. So `own_spectral_distance` says how far the power is from
that of the prompt's own training picture: 0 for that picture. `spectral_distance` is the distance to the *mean* of the data's
spectra, from which real pictures lie {real:.2f} standard deviations away on average: a smaller one is a more average picture, not one
nearer to the data, so nothing is judged by it. Where prompts are no captions of the data, `sweep` and `baselines` compare the
distribution of band powers over the pictures with the data's instead ([methods](methods.md#sweep)). *Content* measures are
made not to see fine detail; how far they do not is measured below.

## Band power

ln of the luma's power in octave bands of radial spatial frequency (cycles per pixel), the mean left out. The picture is
continued by its mirror image (the cosine transform), so opposite borders that differ make no power; the bands add up to the
variance of the luma, and a tone of amplitude a has ln(a² / 2) in its band. Floored at {floor:.1e} luma², what rounding to 8 bits adds.

Reference: {source}.

| band | cycles per pixel | mean ln power | sd over pictures | change when moved | windowed: sd | windowed: change when moved |
|---:|---|---:|---:|---:|---:|---:|
{bands}

*Change when moved*: root mean square over the pictures of the change of ln power when a picture is moved by {shift} px, white coming in.
A Hann window, the usual alternative, makes ln power depend on where the object is, and spreads it more: that is why borders are
mirrored here. The price is leakage. Tones that don't fit the picture, worst phase, % of their power outside their own band:

| cycles per pixel | mirrored, % | Hann window, % |
|---:|---:|---:|
{leaks}

`high_frequency_share` is windowed, as before.

## What disturbances do

Means over {some} of the {pictures} training pictures, drawn at random:

{head}
{rows}

## The judge

A small convolutional classifier of `mini-image`'s captions; its card is
[workbench/models/mini/mini-image-judge](../workbench/models/mini/mini-image-judge/README.md). {judge}

{reading}It knows one picture a caption: it says whether the picture is still that one.

{video}"""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=data.default_work())
    parser.add_argument("--text-only", action="store_true")
    args = parser.parse_args()
    if not args.text_only:
        NUMBERS.write_text(json.dumps(run(args.work), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(NUMBERS.read_text(encoding="utf-8"))), encoding="utf-8")
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
