"""The noise level of every denoising step, in one unit for all schedulers.

A latent of noise level sigma in [0, 1] is (1 − sigma) · data + sigma · noise up to a factor. That is what flow matching calls
sigma; for other schedules, a · data + b · noise, it is b / (a + b): the level of the same signal-to-noise ratio.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from workbench.errors import UnsupportedModelError


def noise_levels(scheduler: Any) -> tuple[np.ndarray, np.ndarray]:
    """Timesteps (the scheduler's values) and sigmas (noise level in [0, 1]) of all steps, float64 (T,).

    Parameters
    ----------
    scheduler : diffusers scheduler
        After ``set_timesteps``. Where it has ``sigmas`` (T + 1,), they run in parallel with ``timesteps`` (T,).

    Raises
    ------
    UnsupportedModelError
        If the noise level can't be told.
    """
    timesteps = np.asarray(torch.as_tensor(scheduler.timesteps).cpu(), dtype=np.float64)
    sigmas = getattr(scheduler, "sigmas", None)
    kind, config = type(scheduler).__name__, scheduler.config
    if (
        "FlowMatch" in kind
        or getattr(config, "use_flow_sigmas", False)
        or getattr(config, "prediction_type", "") == "flow_prediction"
    ):
        if sigmas is None:
            raise _unknown(kind)
        levels = _parallel(sigmas, timesteps)
        if getattr(config, "invert_sigmas", False):  # they run from noise, 0, to data, 1
            levels = 1 - levels
    elif getattr(config, "prediction_type", "") == "trigflow":
        data, noise = np.cos(timesteps), np.sin(timesteps)
        levels = noise / (data + noise)
    elif getattr(scheduler, "alphas_cumprod", None) is not None and (timesteps == np.round(timesteps)).all():
        kept = np.asarray(torch.as_tensor(scheduler.alphas_cumprod).cpu(), dtype=np.float64)[timesteps.astype(int)]
        levels = np.sqrt(1 - kept) / (np.sqrt(kept) + np.sqrt(1 - kept))
    elif sigmas is not None:
        ratio = _parallel(sigmas, timesteps)
        levels = ratio / (1 + ratio)
    else:
        raise _unknown(kind)
    return timesteps, levels


def _parallel(sigmas: Any, timesteps: np.ndarray) -> np.ndarray:
    return np.asarray(torch.as_tensor(sigmas).cpu(), dtype=np.float64)[: len(timesteps)]


def _unknown(kind: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{kind} has neither sigmas nor alphas_cumprod to read a step's noise level from; use a scheduler that has, such as "
        "FlowMatchEulerDiscreteScheduler, or DDIMScheduler for a model of noise predictions."
    )
