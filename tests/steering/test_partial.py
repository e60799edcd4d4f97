"""The pass that shares what comes before block m, against one that runs everything again. Bits, not tolerances.

The reference is the transformer itself with torch's own pre-hook on block m and nothing of the package.
"""

import contextlib
import functools
import gc
import weakref
from typing import Any

import pytest
import torch

from tests.planted import planted_pipeline
from tests.tiny import tiny_pipeline
from tests.tiny_wan import tiny_wan
from workbench.models import layout_for
from workbench.models.call import TransformerCall
from workbench.models.layout import Layout
from workbench.steering.attach import hooked
from workbench.steering.partial import Degraded

CHANNELS = (1, 5)
LARGE = pytest.param(8, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """How a matrix is split among threads depends on its size, and with it the rounding."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sd3(transformer: Any, rows: int) -> tuple[Any, Layout, dict[str, Any], int]:
    config = transformer.config
    size = config.sample_size
    return transformer, layout_for(transformer), {
        "hidden_states": normal(rows, config.in_channels, size, size),
        "encoder_hidden_states": normal(rows, 6, config.joint_attention_dim, seed=1),
        "pooled_projections": normal(rows, config.pooled_projection_dim, seed=2),
        "timestep": torch.full((rows,), 500.0),
    }, (size // 2) ** 2  # fmt: skip


def planted(rows: int) -> Any:
    return sd3(planted_pipeline("constant").transformer, rows)


def dual_attention(rows: int) -> Any:
    """As SD 3.5 medium: its first blocks have an attention more, and nine modulations."""
    return sd3(tiny_pipeline(dual_attention_layers=(0, 1), qk_norm="rms_norm").transformer, rows)


@functools.cache
def loaded() -> Any:
    from workbench.models import load_pipeline

    return load_pipeline("mini-image").transformer


def mini_image(rows: int) -> Any:
    return sd3(loaded(), rows)


def wan(rows: int) -> Any:
    transformer = tiny_wan(vae=False).transformer
    arguments = {
        "hidden_states": normal(rows, 16, 2, 4, 6),
        "timestep": torch.full((rows,), 500.0),
        "encoder_hidden_states": normal(rows, 5, 20, seed=1),
    }
    return transformer, layout_for(transformer), arguments, 12


def auraflow(rows: int) -> Any:
    """Two kinds of blocks: (text, image), then one tensor of text and image, which the model joins in between."""
    from diffusers import AuraFlowTransformer2DModel

    torch.manual_seed(0)
    transformer = AuraFlowTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_mmdit_layers=2, num_single_dit_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=24, caption_projection_dim=32, out_channels=4, pos_embed_max_size=16,
    ).eval()  # fmt: skip
    arguments = {
        "hidden_states": normal(rows, 4, 8, 8),
        "encoder_hidden_states": normal(rows, 6, 24, seed=1),
        "timestep": torch.full((rows,), 0.5),
    }
    return transformer, layout_for(transformer), arguments, 16


def flux(rows: int) -> Any:
    """Two kinds of blocks that both return (text, image); rotary embeddings have no batch axis."""
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
    ).eval()  # fmt: skip
    arguments = {
        "hidden_states": normal(rows, 16, 4),
        "encoder_hidden_states": normal(rows, 6, 24, seed=1),
        "pooled_projections": normal(rows, 16, seed=2),
        "timestep": torch.full((rows,), 0.5),
        "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
        "txt_ids": torch.zeros(6, 3),
    }
    return transformer, layout_for(transformer), arguments, 16


@contextlib.contextmanager
def attached(degraded: Degraded) -> Any:
    with contextlib.ExitStack() as undo:
        for module, hook in degraded.hooks:
            undo.enter_context(hooked(module, hook))
        yield


@torch.no_grad()
def shared_pass(model: Any, layer: str, rows: slice, action: str = "zero", rho: float = 0.0) -> torch.Tensor:
    transformer, layout, arguments, _ = model
    degraded = Degraded(transformer, layout, layer, CHANNELS, action)
    with attached(degraded):
        output, edited = degraded.passes(
            transformer.forward, (), arguments, TransformerCall(layout, transformer, arguments), rows=rows, rho=rho
        )
    assert torch.equal(output.sample, transformer(**arguments).sample), "what the pipeline asked for is as without"
    return edited.sample


@torch.no_grad()
def full_pass(model: Any, layer: str, rows: slice) -> torch.Tensor:
    """All rows through all blocks; the channels are zero in `rows` of the state entering block m."""
    transformer, _, arguments, tokens = model

    def edit(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        h = (kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]).clone()
        for channel in CHANNELS:
            h[rows, -tokens:, channel] = 0  # the image tokens are the last where there are others
        return ((h, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": h})

    handle = transformer.get_submodule(layer).register_forward_pre_hook(edit, with_kwargs=True)
    try:
        return transformer(**arguments).sample[rows]
    finally:
        handle.remove()


def layers_of(model: Any) -> list[str]:
    return model[1].block_paths(model[0])


@pytest.mark.parametrize("batch", [1, 2, 3, LARGE])
@pytest.mark.parametrize("family", [planted, dual_attention, mini_image, wan, auraflow, flux])
def test_equal_bits_where_every_row_is_conditional(family, batch) -> None:
    """Without CFG, and where each branch is a call of its own; at every block."""
    model, everything = family(batch), slice(0, batch)
    plain = model[0](**model[2]).sample
    for layer in layers_of(model):
        expected = full_pass(model, layer, everything)
        assert torch.equal(shared_pass(model, layer, everything), expected), layer
        assert not torch.equal(expected, plain), "the edit must do something, or this shows nothing"


@pytest.mark.parametrize("batch", [2, 3, LARGE])
@pytest.mark.parametrize("family", [planted, dual_attention, mini_image])
def test_equal_bits_in_a_batch_of_two_branches(family, batch) -> None:
    """Against the same batch once more, in full."""
    model, cond = family(2 * batch), slice(batch, 2 * batch)
    for layer in layers_of(model):
        assert torch.equal(shared_pass(model, layer, cond), full_pass(model, layer, cond)), layer


@pytest.mark.parametrize("family", [planted, dual_attention, mini_image])
def test_one_image_in_a_batch_of_two_branches(family) -> None:
    """One row alone is contiguous where two aren't, and torch then adds a bias in another place; 3e-6 at most here."""
    model, cond = family(2), slice(1, 2)
    for layer in layers_of(model):
        shared, full = shared_pass(model, layer, cond), full_pass(model, layer, cond)
        assert (shared - full).abs().max() <= 1e-5 * full.abs().max(), layer


@pytest.mark.parametrize("family", [planted, pytest.param(mini_image, marks=pytest.mark.slow)])
def test_equal_bits_to_the_conditional_rows_alone(family) -> None:
    """A pass of its own for these rows, as version 1 of the package ran it; from four images on, and close below."""
    for batch, equal in ((2, False), (4, True)):
        transformer, layout, arguments, tokens = model = family(2 * batch)
        alone = transformer, layout, {key: value[batch:] for key, value in arguments.items()}, tokens
        for layer in layers_of(model):
            shared = shared_pass(model, layer, slice(batch, 2 * batch))
            full = full_pass(alone, layer, slice(0, batch))
            assert (shared - full).abs().max() <= 1e-5 * full.abs().max(), layer
            assert torch.equal(shared, full) or not equal, layer


@pytest.mark.parametrize("family", [planted, wan, auraflow])
def test_an_edit_that_changes_nothing_gives_the_conditional_pass(family) -> None:
    model, cond = family(8), slice(4, 8)
    plain = model[0](**model[2]).sample[cond]
    for layer in layers_of(model):
        assert torch.equal(shared_pass(model, layer, cond, action="scale", rho=1.0), plain), layer


def test_what_is_shared_runs_once() -> None:
    model = transformer, layout, arguments, _ = planted(4)
    runs: dict[str, int] = {}
    for name, module in transformer.named_modules():
        # Inside a module that is not run, none of its parts is.
        if name.endswith(("proj", "silu", "norm", "linear_1")):
            module.register_forward_hook(lambda *_, name=name: runs.__setitem__(name, runs.get(name, 0) + 1))
    degraded = Degraded(transformer, layout, "transformer_blocks.2", CHANNELS, "zero")
    with attached(degraded):
        degraded.passes(
            transformer.forward,
            (),
            arguments,
            TransformerCall(layout, transformer, arguments),
            rows=slice(2, 4),
            rho=0.0,
        )
    for name, count in runs.items():
        again = name.startswith(tuple(f"transformer_blocks.{i}." for i in (2, 3, 4))) or name in (
            "proj_out",
            "norm_out.norm",
            "norm_out.silu",
        )
        assert count == 1 + again, name
    assert len(runs) > 20
    assert layers_of(model)[2] == "transformer_blocks.2"


@pytest.mark.parametrize("where", ["no error", "conditional pass", "degraded pass"])
def test_nothing_is_held_afterwards(where) -> None:
    transformer, layout, arguments, _ = planted(4)
    degraded = Degraded(transformer, layout, "transformer_blocks.2", CHANNELS, "zero")
    calls: list[int] = []
    states: list[Any] = []

    def watch(module: Any, args: Any, output: Any) -> None:
        states.extend(weakref.ref(tensor) for tensor in output)
        calls.append(1)
        if len(calls) == {"conditional pass": 4, "degraded pass": 7}.get(where):  # replayed blocks are calls too
            raise KeyboardInterrupt

    with attached(degraded):
        handles = [block.register_forward_hook(watch) for block in transformer.transformer_blocks[:4]]
        try:
            degraded.passes(
                transformer.forward,
                (),
                arguments,
                TransformerCall(layout, transformer, arguments),
                rows=slice(2, 4),
                rho=0.0,
            )
        except KeyboardInterrupt:  # and its traceback, which holds what the frames held, is gone after this
            assert where != "no error"
        else:
            assert where == "no error"
        for handle in handles:
            handle.remove()
        assert degraded.shared.kept == {}
        assert degraded.shared.rows is None
        assert not degraded.shared.replaying
        assert not degraded.edit.active
        gc.collect()
        assert len(states) >= 8
        assert not [state for state in states if state() is not None]
