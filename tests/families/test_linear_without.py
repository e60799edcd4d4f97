"""A setting with which a pipeline's guidance is not linear is refused while Detail Guidance is applied, and only then."""

from __future__ import annotations

import importlib

import pytest

import workbench
from tests.families.check import generate
from tests.families.test_steered import dg_spec
from workbench.errors import UnsupportedModelError
from workbench.models import layout_for

SETTINGS = (
    ("image_plain", "hunyuan-dit", {"guidance_rescale": 0.5}),
    ("image_lumina", "zimage", {"cfg_normalization": True}),
    ("video_mochi", "easyanimate", {"guidance_rescale": 0.5}),
    ("video_ltx", "ltx", {"guidance_rescale": 0.5}),
    ("video_cog", "cogvideox", {"use_dynamic_cfg": True}),
    ("video_cog", "cogvideox-i2v", {"use_dynamic_cfg": True}),
)


@pytest.mark.parametrize(("module", "name", "setting"), SETTINGS, ids=[name for _, name, _ in SETTINGS])
def test_a_setting_that_bends_guidance_is_refused(module: str, name: str, setting: dict[str, object]) -> None:
    families = importlib.import_module(f"tests.families.{module}").FAMILIES
    family = next(family for family in families if family.name == name)
    pipe = family.build()
    assert family.guided is not None
    with workbench.apply(dg_spec(pipe, layout_for(pipe)), pipe):
        generate(family, pipe, family.calls[0], family.guided)
        with pytest.raises(UnsupportedModelError, match=f"{next(iter(setting))} = .* not linear"):
            generate(family, pipe, family.calls[0], {**family.guided, **setting})
        if family.plain is not None:  # without guidance there is nothing to combine
            generate(family, pipe, family.calls[0], family.plain)
