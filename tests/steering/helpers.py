"""A spec for any pipeline, and a plain implementation of Detail Guidance to compare with."""

from typing import Any

import torch

from workbench.steering.spec import DetailGuidanceSpec


def fields(**changes: Any) -> dict[str, Any]:
    return {
        "model": {
            "family": "sd3",
            "transformer_class": "SD3Transformer2DModel",
            "config_hash": "0123456789abcdef",
            "weight_hash": "fedcba9876543210",
            "repo": None,
            "revision": None,
        },
        "layer": "transformer_blocks.2",
        "channels": [5, 41],
        "action": "zero",
        "retention": None,
        "branch": "cond",
        "weight": 1.5,
        "window": {"unit": "sigma", "low": 0.0, "high": 1.0},
        "recommended": {"guidance_scale": 4.0, "steps": 20},
        "evidence": {
            "criterion": "workbench",
            "parameters": {"layers": 0.5},
            "store": {"schema_version": 1},
            "n_samples": 4,
            "channels": [{"channel": 5, "ratio_to_median": 13.25}],
            "rule": "made for a test",
            "provenance": {"weight": "given"},
            "notes": {},
        },
        "created_by": {"workbench": "0.1.0"},
        **changes,
    }


def make_spec(pipe: Any, **changes: Any) -> DetailGuidanceSpec:
    from workbench.models import fingerprint

    return DetailGuidanceSpec.create(**fields(model={"family": "sd3", **fingerprint(pipe)}, **changes))


def state_of(pipe: Any) -> dict[str, Any]:
    """Every attribute of every module, by identity; what a hook could have left behind."""
    state: dict[str, Any] = {}
    for name, module in pipe.transformer.named_modules():
        for key, value in vars(module).items():
            state[f"{name}.{key}"] = dict(value) if isinstance(value, dict) else value
    return state


def assert_untouched(pipe: Any, before: dict[str, Any]) -> None:
    after = state_of(pipe)
    assert after.keys() == before.keys()
    for key, value in before.items():
        assert after[key] is value or isinstance(value, dict), key
        if isinstance(value, dict):
            assert after[key].keys() == value.keys(), key
            assert all(after[key][name] is item for name, item in value.items()), key


@torch.no_grad()
def plain_detail_guidance(
    pipe: Any,
    spec: DetailGuidanceSpec,
    prompts: list[str],
    latents: torch.Tensor,
    *,
    steps: int,
    guidance_scale: float,
    is_open: Any = lambda sigma, step: True,
    weight: Any = None,
    edit: Any = None,
) -> torch.Tensor:
    """D = D_u + s (D_c − D_u) + w (D_c − D_m), three separate passes a step, own loop, torch's own pre-hook.

    Shares no code with the package: the mask multiplies, the branches are never batched, Euler's step is written out.
    `weight` (of sigma) and `edit` (of a state and sigma) stand for a spec with schedules and other actions.
    """
    transformer = pipe.transformer
    cond, uncond, pooled, pooled_uncond = pipe.encode_prompt(prompt=prompts, prompt_2=None, prompt_3=None)
    keep = torch.ones(transformer.inner_dim)
    keep[list(spec.channels)] = 0.0
    edit = edit or (lambda h, sigma: h * keep)
    weight = weight or (lambda sigma: spec.weight)

    shift, n = pipe.scheduler.config.shift, pipe.scheduler.config.num_train_timesteps
    # FlowMatchEulerDiscreteScheduler shifts its whole table once, takes equal steps between the table's ends and shifts
    # those again; its ends are the first and the last of the n training steps.
    first = torch.linspace(n, 1, n, dtype=torch.float64)[[0, -1]] / n
    first = shift * first / (1 + (shift - 1) * first)
    sigmas = torch.linspace(float(first[0]), float(first[1]), steps, dtype=torch.float64)
    sigmas = torch.cat([shift * sigmas / (1 + (shift - 1) * sigmas), torch.zeros(1, dtype=torch.float64)])
    x = latents.clone()
    for i in range(steps):
        t = (sigmas[i] * n).float().expand(len(prompts))

        def predict(text: torch.Tensor, vector: torch.Tensor, x: torch.Tensor = x, t: torch.Tensor = t) -> torch.Tensor:
            return transformer(
                hidden_states=x, timestep=t, encoder_hidden_states=text, pooled_projections=vector, return_dict=False
            )[0]

        d_c = predict(cond, pooled)
        d = d_c
        if guidance_scale > 1:
            d_u = predict(uncond, pooled_uncond)
            d = d_u + guidance_scale * (d_c - d_u)
        if is_open(float(sigmas[i]), i):

            def masked(module: Any, args: Any, kwargs: dict[str, Any], sigma: float = float(sigmas[i])) -> Any:
                return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"], sigma)}

            handle = transformer.get_submodule(spec.layer).register_forward_pre_hook(masked, with_kwargs=True)
            d_m = predict(cond, pooled)
            handle.remove()
            d = d + weight(float(sigmas[i])) * (d_c - d_m)
        x = x + float(sigmas[i + 1] - sigmas[i]) * d
    return x
