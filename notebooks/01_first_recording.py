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
# # Your first recording
#
# A diffusion transformer (DiT) turns noise into an image, block by block, step by step. Between the blocks flows the *hidden
# state*: one vector of a few hundred to a few thousand channels for every image token. In trained DiTs a handful of these
# channels are far larger than all others, on nearly every token: **massive activations** (MAs).
#
# In this notebook you record a really trained model while it draws, find its MAs, watch them along the trajectory, and then
# *use* them: zeroing them in one layer gives a model that is poor in detail, and steering away from it is **Detail Guidance**.
#
# Everything runs on two CPU cores in about two minutes. The model, `mini-image`, comes with the package.

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import workbench

folder = Path(tempfile.mkdtemp(prefix="workbench-"))

# %% [markdown]
# ## 1. Record
#
# One call generates the images and keeps what every block put on the residual stream, at every step, for both branches of
# classifier-free guidance. The images are bit-identical to those of the plain pipeline: recording only looks.
#
# A *sample* is one prompt with one seed. Tokens, layers and steps of one image are not independent of each other, and neither
# are two seeds of one prompt: every interval below is over *prompts*.

# %%
store = workbench.record(
    "mini-image",
    prompts=["red apple", "dog face", "blue heart", "pizza", "rocket", "sunflower"],
    seeds=0,
    steps=20,
    guidance_scale=4.0,
    tier="full",
    batch_size=6,
    out=folder / "first.zarr",
    progress=False,
)
recording = workbench.open(store)
recording

# %% [markdown]
# A recording is an ordinary `xarray.Dataset` with named dimensions, lazily loaded from Zarr files. You need nothing of the
# workbench to read it: `xarray.open_zarr(store, consolidated=False)` gives the same. These are the images it drew:

# %%
figure, axes = plt.subplots(1, 6, figsize=(9, 1.9))
for i, axis in enumerate(axes):
    axis.imshow(recording.image[i])
    axis.set_title(f"{recording.prompt.values[i]}\nseed {recording.seed.values[i]}", fontsize=8)
    axis.set_axis_off()

# %% [markdown]
# ## 2. Look
#
# Take one hidden state: one sample, the conditional branch, one block, one step. Rows are image tokens, columns are channels.

# %%
state = recording.hidden.sel(branch="cond", layer="transformer_blocks.5").isel(sample=0, timestep=5)
figure, axis = plt.subplots(figsize=(11, 3))
abs(state).plot.imshow(ax=axis, cmap="magma_r", add_labels=False)
_ = axis.set(
    xlabel="channel", ylabel="image token", title="|h| after block 5: the dark stripes are massive activations"
)

# %% [markdown]
# Dark vertical stripes: a few channels are large on nearly every token.
#
# ## 3. Locate
#
# "Large" needs a rule. The papers use different ones, so the workbench reports them side by side; the default asks for
# dominance over the other channels, persistence over tokens and samples, and recurrence over layers and timesteps
# (`docs/methods.md` has the definitions and the measured false-alarm rates).

# %%
found = workbench.locate(recording)
print(found.attrs["verdict"] + ":", found.attrs["verdict_reason"])

# %%
import pandas as pd

from workbench.analysis.locate import located_channels, table

pd.DataFrame(table(found)).round(2)

# %% [markdown]
# ## 4. Follow
#
# How large are they at each step? And do they go with the AdaLN *gate*, the factor through which the timestep embedding lets
# each block write onto the residual stream?

# %%
from workbench.figures import gate, trajectory

followed = workbench.modulation(recording)
trajectory.draw(followed)

# %%
gate.draw(followed)

# %% [markdown]
# The verdict is *undecided*, on purpose: along a trajectory the timestep and the noise in the latent change together, so this
# picture alone can't say which of them drives the magnitude. That takes an experiment in which they are varied apart.

# %%
print(followed.attrs["verdict"] + ":", followed.attrs["verdict_reason"])

# %% [markdown]
# ## 5. Use
#
# Detail Guidance makes a second, worse prediction $D_m$ by setting the MA channels to zero in the image tokens that enter one
# block $m$, and pushes away from it:
#
# $$D = D_u + s\,(D_c - D_u) + w\,(D_c - D_m)$$
#
# `derive_dg` picks the channels and the block by a documented rule and writes them, with the evidence, into a *spec*: a small
# JSON file that says exactly what is done to which model.

# %%
if located_channels(found):
    spec = workbench.derive_dg(recording)
    workbench.save_spec(spec, folder / "spec.json", overwrite=True)
    print(f"channels {list(spec.channels)} at the entry of {spec.layer}, weight {spec.weight:g}")
else:
    spec = None
    print("no channel was located in this recording, so there is nothing to derive")

# %% [markdown]
# The same seeds, without guidance, with CFG, with DG, with both:

# %%
from workbench.sampling.compare import compare, comparison_figure

if spec is not None:
    result = workbench.sample(
        "mini-image",
        prompts=["red apple", "dog face", "blue heart", "pizza", "rocket", "sunflower"],
        seeds=100,
        spec=spec,
        modes=("plain", "cfg", "dg", "cfg+dg"),
        progress=False,
    )
    display(comparison_figure(result))

# %% [markdown]
# Numbers go with pictures. Differences are paired, from the same noise; with this few samples the intervals are wide, and that
# is the point of showing them.

# %%
if spec is not None:
    columns = ["mode", "against", "measure", "n", "mean_against", "mean", "difference", "low", "high"]
    display(compare(result).differences[columns].round(4))

# %% [markdown]
# A weight of 0 is no guidance at all, to the bit, and after the context ends the pipeline is as it was:

# %%
pipe = workbench.load_pipeline("mini-image")
before = workbench.sample(pipe, prompts="red apple", seeds=7, progress=False).latents
if spec is not None:
    with workbench.apply(spec, pipe):
        pass
after = workbench.sample(pipe, prompts="red apple", seeds=7, progress=False).latents
assert np.array_equal(before, after)

# %% [markdown]
# ## Next
#
# * `workbench report STORE --out reports/x` writes all of this, and more, into one HTML page with figures as PDF, PNG and CSV.
# * `workbench record YOUR-MODEL --plan` says what a recording of a model of yours would take before anything runs.
# * [docs/schema.md](../docs/schema.md) is the store's contract, [docs/methods.md](../docs/methods.md) what the analyses do.
