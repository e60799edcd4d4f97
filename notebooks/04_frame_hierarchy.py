# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Videos: the frame hierarchy, and STAS
#
# A video diffusion transformer works on the tokens of several *latent frames*, one contiguous run of tokens each. Cheng et al.
# ([arXiv 2603.17825](https://arxiv.org/abs/2603.17825)) report that massive activations (MAs) follow them: largest on tokens of
# the **first** frame, then on the **boundary** (head and tail of every later frame's run), smallest in the **interior**. Their
# method, **STAS**, makes the first two as large as they come, early in the denoising.
#
# Here you record a really trained text-to-video model, `mini-video`, see whether *it* has that hierarchy, derive a STAS spec, and
# look at videos with and without it. A few prompts only, so that it takes about two minutes: intervals are wide, and some
# verdicts *undecided*.

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

import pandas as pd
from IPython.display import HTML

import workbench
from workbench.analysis.locate import located_channels
from workbench.figures import frame_strip, preview

folder = Path(tempfile.mkdtemp(prefix="workbench-"))
pipe = workbench.load_pipeline("mini-video")
prompts = ["rocket", "butterfly", "beating heart", "ghost", "fish", "dog face", "fire", "sun with face"]

# %% [markdown]
# ## 1. Record
#
# As for images; but the pipeline calls its transformer twice a step, once for each branch of CFG, and the recorder tells them
# apart. Hidden states of videos are large, so here only every fourth step of one branch is kept. A *sample* is one prompt with
# one seed, and intervals are over prompts.

# %%
recording = workbench.open(
    workbench.record(
        pipe, prompts=prompts, seeds=0, steps=20, guidance_scale=4.0, tier="full", batch_size=4,
        select=workbench.Select(timesteps="::4", branches="cond"), out=folder / "videos.zarr", progress=False,
    )
)  # fmt: skip
frame_strip.draw(recording, fps=preview.RATE)

# %%
videos = recording.image.values
HTML(preview.html(list(videos[:4]), prompts[:4], alt=f"Four generated animations: {', '.join(prompts[:4])}."))

# %% [markdown]
# ## 2. Roles
#
# Every token knows its latent frame, row and column, and its role. The first frame is encoded alone, every later one from four
# frames of video. How many tokens of a run are *boundary* the paper doesn't say: the width is a parameter, and always written down.

# %%
print(recording.role.to_series().value_counts().to_dict())
print(f"boundary width: {recording.attrs['boundary_width']} tokens ({recording.attrs['boundary_width_source']})")

# %% [markdown]
# ## 3. Which channels, and how wide is the boundary?
#
# First the massive channels. Then their magnitude along the flattened token index, from which the width is read off, or else said
# not to be there.

# %%
found = workbench.locate(recording)
print(found.attrs["verdict"] + ":", found.attrs["verdict_reason"])
channels = located_channels(found)

# %%
from workbench.figures import profile as profile_figure

# Without massive channels, the rest looks at the strongest one, and says so.
followed = channels or [int(found.channel[int(found.ratio_to_median.max("layer").values.argmax())])]
profiled = workbench.profile(recording, channels=followed)
print(profiled.attrs["verdict"] + ":", profiled.attrs["verdict_reason"])
profile_figure.draw(profiled)

# %% [markdown]
# ## 4. Is there a hierarchy?
#
# In raster order the head and tail of a run are the *top and bottom rows* of the picture. Whatever makes the edge of a picture
# special makes the "boundary" special too. So the first and last *columns* serve as a control: a boundary that is more than an
# image edge has rows above columns. The first frame is compared at the same places, and ordinary channels stand beside it all.

# %%
levels = workbench.hierarchy(recording, channels=followed)
print(levels.attrs["levels"])
print(levels.attrs["verdict"] + ":", levels.attrs["verdict_reason"])

# %%
from workbench.figures import hierarchy_contrasts, hierarchy_dynamics, hierarchy_map

hierarchy_contrasts.draw(levels)

# %% [markdown]
# Where in the model, and when? Papers disagree on whether this is strongest early or late.

# %%
hierarchy_map.draw(levels)

# %%
hierarchy_dynamics.draw(levels)

# %% [markdown]
# ## 5. STAS
#
# $$h \leftarrow \alpha \cdot \max|h| \cdot \operatorname{sign}(h)$$
#
# at the massive channels of first-frame and boundary tokens, in the state that leaves one block, in the first 40 % of the steps. No
# pass of the model is added. What the paper doesn't establish is a parameter; the spec says of each value where it comes from.
# Where the hierarchy was not found, `anyway=True` derives a spec all the same, and its evidence says so.

# %%
options = {} if channels else {"channels": followed, "layers": str(recording.layer.values[len(recording.layer) // 2])}
spec = workbench.derive_stas(recording, hierarchy=levels, anyway=True, **options)
workbench.save_spec(spec, folder / "stas.json")
print(
    f"channels {list(spec.channels)} in the state that leaves {', '.join(spec.layers)}, {spec.boundary_width.value:g}",
    end=" ",
)
print(f"{spec.boundary_width.unit} of boundary, α = {spec.alpha_first:g} and {spec.alpha_boundary:g}")
pd.Series(spec.recommended.source)

# %% [markdown]
# ## 6. With and without
#
# The same seeds, side by side in one animation, so that they can't drift apart. CFG alone is on the left.

# %%
result = workbench.sample(
    pipe, prompts=prompts[:3], seeds=100, spec=spec, modes=("cfg", "cfg+stas"), batch_size=3, progress=False
)
rows = [
    preview.html(
        [result.of(mode)[i] for mode in result.modes], ["CFG", "CFG + STAS"],
        alt=f"Two animations of {prompt} from the same noise, without and with STAS.",
    )
    for i, prompt in enumerate(result.prompts)
]  # fmt: skip
HTML('<div style="display:flex;flex-wrap:wrap;gap:1.5rem">' + "".join(rows) + "</div>")

# %%
pairs = [(prompt, mode, result.of(mode)[i]) for i, prompt in enumerate(result.prompts) for mode in result.modes]
frame_strip.strip(
    [video for *_, video in pairs], [{"cfg": "CFG", "cfg+stas": "CFG + STAS"}[mode] for _, mode, _ in pairs],
    groups=[prompt for prompt, *_ in pairs], fps=preview.RATE,
)  # fmt: skip

# %% [markdown]
# ## 7. Does it do any good?
#
# Pictures can't tell. A trial generates the same samples without STAS, with it, and with controls that each differ from it in one
# thing: other channels that hold as much, or zeros instead of large values. A video that stands still is perfectly steady, so
# the amount of change stands beside flicker and smoothness. The differences are paired, by prompt.

# %%
measured = workbench.stas_trial(
    spec, pipe, recording=recording, controls=("matched", "zero"), prompts=prompts, seeds=100, steps=20, batch_size=4,
    out=folder / "trial", progress=False,
)  # fmt: skip
effects = workbench.stas_effects(measured)
print(effects.attrs["verdict"] + ":", effects.attrs["verdict_reason"])

# %%
from workbench.figures import stas_effects as stas_figure

stas_figure.draw(effects)

# %% [markdown]
# ## Next
#
# * `workbench.report(STORE, OUT, spec=…, stas=…)` writes all of this into one page, animations included.
# * [docs/hierarchy.md](../docs/hierarchy.md) has the contrasts, their nulls and the measured error rates;
#   [docs/profile.md](../docs/profile.md) the same for the boundary width.
