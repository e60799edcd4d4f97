"""Detail Guidance (paper A: Gan et al., arXiv 2510.11538, ICLR 2026): the arithmetic, nothing else.

Shapes: B rows of the batch, N image tokens, C hidden-state channels; predictions are of the latents' shape (B, ...).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import SpecError

if TYPE_CHECKING:
    import torch

METHOD_VERSION = 1
"""Raised whenever a spec comes to mean something else; decides, with the spec, whether stored images are of it."""


def combine(
    d_cond: torch.Tensor,
    d_uncond: torch.Tensor | None,
    d_degraded: torch.Tensor,
    guidance_scale: float,
    weight: float,
) -> torch.Tensor:
    """Return ``D = D_u + s (D_c - D_u) + w (D_c - D_m)``, the guided prediction of paper A with CFG.

    The paper writes ``D_c + lambda (D_c - D_u) + w (D_c - D_m)``; that is the same with ``s = 1 + lambda``. It is
    linear, so it applies to a velocity or a noise prediction as it does to a denoised image.

    Parameters
    ----------
    d_cond, d_uncond, d_degraded : Tensor
        Predictions with the prompt, without it, and with the prompt but the massive activations set to zero.
        `d_uncond` is None without CFG: then the result is ``D_c + w (D_c - D_m)``, the paper's form without CFG.
    guidance_scale : float
        s, the usual CFG scale; not used if `d_uncond` is None.
    weight : float
        w.

    Returns
    -------
    Tensor
        Of the predictions' shape.
    """
    base = d_cond if d_uncond is None else d_uncond + guidance_scale * (d_cond - d_uncond)
    return base + weight * (d_cond - d_degraded)


def shifted_cond(d_cond: torch.Tensor, d_degraded: torch.Tensor, weight: float, gain: float) -> torch.Tensor:
    """Return ``c' = c + (w / g)(c - d)``: what must stand in c's place so that the pipeline's own CFG yields `combine`.

    A pipeline whose result is ``... + g c`` then has ``... + g c + w (c - d)``. `gain` is g: s for
    ``u + s (c - u)``, and 1 without CFG.

    Raises
    ------
    SpecError
        If `gain` is 0: then the conditional prediction has no part in the result, and neither can the guidance.
    """
    if gain == 0:
        raise SpecError("the guidance scale is 0, so the pipeline ignores the prompt and Detail Guidance can't act.")
    return d_cond + (weight / gain) * (d_cond - d_degraded)
