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
# # Is it the timestep?
#
# The Detail Guidance paper says that the *timestep embedding* modulates massive activations (MAs): AdaLN tells every block how
# large a gate to open, and the gates are largest at the MA channels. The evidence one usually sees is a curve of magnitude
# against timestep. But along a trajectory a late timestep always comes with a clean latent, so such a curve can't say which
# of the two moves the magnitude.
#
# Here the two are taken apart. The embedding of a timestep $t'$ goes in together with the latent of another timestep $t$, for
# every pair of a grid, with everything else as it was. `mini-image`, the model that comes with the package, runs this on two
# CPU cores in about a minute.

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

import pandas as pd

import workbench
from workbench.analysis.locate import located_channels

folder = Path(tempfile.mkdtemp(prefix="workbench-"))
prompts = ["red apple", "dog face", "blue heart", "pizza", "rocket", "sunflower", "cat face", "hamburger"]
settings = {"prompts": prompts, "seeds": 0, "steps": 20, "guidance_scale": 4.0, "batch_size": 8, "progress": False}

# %% [markdown]
# ## 1. What is observed
#
# An ordinary recording: which channels are massive, and how large are they at each noise level?

# %%
recording = workbench.open(workbench.record("mini-image", out=folder / "trajectory.zarr", **settings))
found = workbench.locate(recording)
channels = located_channels(found)
print("massive:", channels)

# %%
from workbench.figures import trajectory

followed = workbench.modulation(recording)
trajectory.draw(followed)

# %% [markdown]
# The strongest channel is nearly flat. Does the timestep leave it alone? The verdict of this part is always *undecided*:

# %%
print(followed.attrs["verdict"], "-", followed.attrs["verdict_reason"].split(";")[-1])

# %% [markdown]
# ## 2. The experiment
#
# `--experiment timestep-swap` on the command line. The plain pipeline generates each sample; then its calls of the transformer at
# five steps are made again with the timestep of each of the others. The cells in which nothing is exchanged are bit-identical to
# the trajectory above. `mediate` names blocks in which, besides, only the AdaLN terms are exchanged: the gates, or shifts and
# scales, or all of them, while everything else is told the right timestep.

# %%
writers = [name for name in dict.fromkeys(map(str, followed.writer.values)) if name]
swap = workbench.open(
    workbench.record(
        "mini-image", experiment="timestep-swap", grid=5, mediate=writers, out=folder / "swap.zarr", **settings
    )
)
swap.timestep.size, "cells;", writers

# %% [markdown]
# ## 3. What moves the magnitude
#
# Each square is the mean magnitude for one latent (across) and one embedding (up); the dotted diagonal is the ordinary
# trajectory. Below are the means over the other factor. After block 2, where the strongest channel stands out most:

# %%
from workbench.figures import causal_surface, variance_shares

result = workbench.causal(swap, channels=channels)
causal_surface.draw(result, layer="transformer_blocks.2")

# %% [markdown]
# This is why the curve of the strongest channel was flat: going from noise to image, the embedding lowers it, and the cleaner
# latent raises it by about as much. The observed curve hid a strong effect. The numbers per block, as the change of ln mean |h|
# from the cleanest to the noisiest level of each factor:

# %%
strongest = channels[0]
result.trend.sel(factor=["embedding", "latent"], channel=strongest).to_pandas().T.round(2)

# %% [markdown]
# How much of the variance of ln mean |h| belongs to what:

# %%
variance_shares.draw(result)

# %% [markdown]
# The verdict rests on an effect size with its interval, not on a p-value alone: a network is deterministic, so an effect of any
# size is there for sure. *Supported* needs the largest difference between two embeddings to lie beyond a tenth; *not supported*
# needs it to be shown smaller than that.

# %%
print(result.attrs["verdict"])
pd.DataFrame(
    {
        "verdict": [str(verdict) for verdict in result.channel_verdict.values],
        "embedding": result.effect_overall.sel(factor="embedding").values,
        "low": result.effect_overall_low.sel(factor="embedding").values,
        "high": result.effect_overall_high.sel(factor="embedding").values,
        "latent": result.effect_overall.sel(factor="latent").values,
        "p, corrected": result.p_corrected_overall.sel(factor="embedding").values,
    },
    index=pd.Index(result.channel.values, name="channel"),
).round(3)

# %% [markdown]
# ## 4. Through the gate?
#
# Share of the embedding's effect, after the last block, that comes with some terms of one block alone:

# %%
from workbench.figures import mediation

if writers:
    display(mediation.draw(result))

# %% [markdown]
# ## Next
#
# * `workbench modulation STORE --experiment SWAP` prints the same; `workbench report … --experiment SWAP` draws it.
# * `--experiment prompt-swap` gives the first prompt's latents to every text, and `seed-swap` varies the seed alone.
# * How often these verdicts are wrong, and how many prompts they need, is measured in [docs/methods.md](../docs/methods.md).
# * Next notebook: [what massive activations carry, and what Detail Guidance does with them](03_detail_guidance.ipynb).
