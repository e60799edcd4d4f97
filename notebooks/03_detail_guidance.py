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
# # Detail Guidance, measured
#
# Two papers disagree on what massive activations (MAs) carry: local *detail* (Gan et al., who zero them to get a model poor in
# detail, and steer away from it: **Detail Guidance**), or *content* (Turri et al., whose pictures collapse without them). Both
# may hold, in different models. Here you find out for one, `mini-image`, and then whether Detail Guidance does it any good.
#
# Everything below runs in about two minutes on two CPU cores, with few prompts: wide intervals, and some verdicts *undecided*.
# [docs/studies/mini-image.md](../docs/studies/mini-image.md) has the same at 64 prompts.

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

import pandas as pd

import workbench
from workbench.sampling.semantic import study_prompts

folder = Path(tempfile.mkdtemp(prefix="workbench-"))
pipe = workbench.load_pipeline("mini-image")
prompts = study_prompts("mini-image")[:10]
recording = workbench.open(
    workbench.record(
        pipe, prompts=prompts, seeds=0, steps=20, guidance_scale=4.0, batch_size=10, out=folder / "recording.zarr",
        progress=False,
    )
)  # fmt: skip
spec = workbench.derive_dg(recording)
print(f"channels {list(spec.channels)} at the entry of {spec.layer}, weight {spec.weight:g}")

# %% [markdown]
# ## 1. What do they carry?
#
# Zero the massive channels where they enter one block, let the change run on, and look at the pictures. A change alone means
# little: anything that large might do it. So there are controls from the same seeds: as many random channels, as many small
# ones, random channels that give up as much norm, and noise of that norm.

# %%
measured = workbench.disrupt(
    pipe, recording, layers=[spec.layer], windows={}, draws=1, prompts=prompts, batch_size=10, out=folder / "disruption",
    progress=False,
)  # fmt: skip
carried = workbench.disruption(measured)
print(carried.attrs["verdict"], "-", carried.attrs["verdict_reason"])

# %%
from workbench.figures import disruption as disruption_figure

disruption_figure.draw(carried)

# %% [markdown]
# Both losses are shares of the difference to *another prompt's picture*: 0 is no change, 1 is as different as another picture.
#
# ## 2. Detail Guidance
#
# $$D = D_u + s\,(D_c - D_u) + w\,(D_c - D_m)$$
#
# $D_m$ is the conditional pass with the massive channels zeroed before block $m$. The blocks before $m$ are shared with the
# ordinary pass and not run again. Variants are in the same spec: a soft retention $\rho_t$ instead of zero (the follow-up paper),
# the mean over tokens, weights and windows that depend on the noise level.

# %%
soft = spec.replace(action="scale", retention={"knots": [[0.0, 0.2], [1.0, 0.8]]}, weight=2.0)
early = spec.replace(weight={"knots": [[0.0, 0.0], [1.0, 3.0]]})
for one in (spec, soft, early):
    with workbench.apply(one, pipe) as attached:
        pipe("red apple", num_inference_steps=8, guidance_scale=4.0, output_type="latent", max_sequence_length=16)
    print(one.action, "-", attached.degraded_passes, "extra passes in", attached.calls, "steps")

# %% [markdown]
# ## 3. Is any setting better than none?
#
# The best of many settings always looks good, because luck helped it to be the best. So the sweep chooses on half of the prompts
# and reports on the other half. A setting counts as better if the pictures come closer to the spectrum of the training pictures
# (sharpening beyond them does not) while the content is kept.

# %%
from workbench.analysis.sweep import sweep as analyse

swept = workbench.sweep(
    spec, pipe, over={"weight": [1.0, 4.0]}, modes="cfg+dg", prompts=prompts, model_name="mini-image", batch_size=10,
    out=folder / "sweep", progress=False,
)  # fmt: skip
best = analyse(swept)
print(best.attrs["verdict"], "-", best.attrs["verdict_reason"])

# %%
shown = best.sel(measure=["edge_energy", "low_pass_similarity", "own_spectral_distance"])
shown[["effect", "effect_low", "effect_high"]].to_dataframe()[["effect", "effect_low", "effect_high"]].unstack(
    "measure"
).round(4)

# %% [markdown]
# The spec that is exported says so, too: `derive_dg(sweep=…)` takes the best setting where there is one, and writes what was
# measured into the evidence in any case.

# %%
final = workbench.derive_dg(recording, sweep=swept)
workbench.save_spec(final, folder / "spec.json")
pd.Series(final.evidence.provenance)

# %% [markdown]
# ## Next
#
# * `workbench disruption`, `workbench sweep` and `workbench baselines` do this on the command line, resumable, with an estimate
#   first; `baselines` puts Detail Guidance beside higher CFG scales, skip-layer guidance and perturbed attention.
# * `workbench study MODEL` does all of it at publication size and writes the report.
# * [docs/spec.md](../docs/spec.md) explains every key of a spec.
