"""A spec of STAS survives the trip to disk, says what is wrong, and counts its tokens on any grid."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.steering.helpers import fields
from tests.steering.stas_helpers import stas_fields
from workbench.errors import SpecError
from workbench.steering import stas_spec
from workbench.steering.spec import DetailGuidanceSpec, StasSpec, json_schema, load_spec, parse_spec, save_spec

ROOT = Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft202012Validator(json_schema())
quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

alphas = st.none() | st.floats(0, 100)
paths = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,9}(\.[A-Za-z0-9_]{1,5}){0,3}\Z")
widths = st.one_of(
    st.builds(lambda n, unit: {"unit": unit, "value": n}, st.integers(1, 1 << 20), st.sampled_from(["tokens", "rows"])),
    st.builds(lambda x: {"unit": "fraction", "value": x}, st.floats(0, 0.5, exclude_min=True, exclude_max=True)),
)


@st.composite
def specs(draw: Any) -> StasSpec:
    low, high = sorted((draw(st.floats(0, 1)), draw(st.floats(0, 1))))
    action = draw(st.sampled_from(["steer", "scale", "zero"]))
    alpha = st.none() | st.just(0.0) if action == "zero" else alphas
    return StasSpec.create(
        **stas_fields(
            channels=sorted(draw(st.sets(st.integers(0, 10_000), min_size=1, max_size=8))),
            layers=draw(st.lists(paths, min_size=1, max_size=4, unique=True)),
            action=action,
            **{f"alpha_{role}": draw(alpha) for role in ("first", "boundary", "interior")},
            boundary_width=draw(widths),
            reference=draw(st.sampled_from(["channel", "joint"])),
            branches=draw(st.sampled_from([["cond"], ["uncond"], ["cond", "uncond"]])),
            window={"unit": draw(st.sampled_from(["sigma", "step_fraction"])), "low": low, "high": high},
        )
    )


@quick
@given(specs())
def test_round_trip(tmp_path: Path, spec: StasSpec) -> None:
    path = save_spec(spec, tmp_path / "spec.json", overwrite=True)
    loaded = load_spec(path)
    assert type(loaded) is StasSpec
    assert loaded == spec
    first = path.read_bytes()
    save_spec(loaded, path, overwrite=True)
    assert path.read_bytes() == first
    VALIDATOR.validate(json.loads(first))


@quick
@given(specs(), st.data())
def test_no_byte_can_change_the_content(tmp_path: Path, spec: StasSpec, data: Any) -> None:
    path = save_spec(spec, tmp_path / "spec.json", overwrite=True)
    raw = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] = data.draw(st.integers(0, 255).filter(lambda byte: byte != raw[position]))
    path.write_bytes(raw)
    try:
        loaded = load_spec(path)
    except SpecError:
        return
    assert loaded == spec


@quick
@given(specs())
def test_idle_means_that_no_entry_can_change(spec: StasSpec) -> None:
    alphas = [spec.alpha_first, spec.alpha_boundary, spec.alpha_interior]
    assert spec.idle == (set(alphas) <= ({None, 1.0} if spec.action == "scale" else {None}))


@given(st.tuples(st.integers(2, 5), st.integers(1, 20), st.integers(1, 20)), widths)
def test_width_in_tokens_fits_or_is_refused(grid: tuple[int, int, int], width: dict[str, Any]) -> None:
    spec = StasSpec.create(**stas_fields(boundary_width=width))
    meant = {"tokens": width["value"], "rows": width["value"] * grid[2], "fraction": width["value"] * grid[1] * grid[2]}
    try:
        found = spec.width_on(grid)
    except SpecError:
        assert 2 * max(1.0, meant[width["unit"]] + 0.5) >= grid[1] * grid[2]
    else:
        assert found >= 1
        assert 2 * found < grid[1] * grid[2]
        assert found == 1 or abs(found - meant[width["unit"]]) <= 0.5


def test_width_by_hand() -> None:
    def on(unit: str, value: float, *grid: int) -> int:
        width = {"unit": unit, "value": value}
        return StasSpec.create(**stas_fields(boundary_width=width)).width_on(grid)  # type: ignore[arg-type]

    assert (on("rows", 1, 5, 8, 8), on("rows", 2, 21, 30, 52)) == (8, 104)
    assert (on("fraction", 1 / 8, 5, 8, 8), on("fraction", 0.001, 5, 8, 8)) == (8, 1)
    assert on("tokens", 3, 2, 1, 7) == 3
    with pytest.raises(SpecError, match=r"5 x 8 x 8 tokens .* boundary_width 4 rows: .*from 1 to 31.*replace"):
        on("rows", 4, 5, 8, 8)
    with pytest.raises(SpecError, match="1 x 8 x 8 tokens .*two latent frames"):
        on("rows", 1, 1, 8, 8)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": []}, ["`layers`", "at least 1"]),
        ({"layers": ["blocks.1", "blocks.1"]}, ["once each"]),
        ({"layers": ["blocks/1"]}, ["`layers.0`"]),
        ({"alpha_first": -0.1}, ["`alpha_first`", "greater than or equal to 0"]),
        ({"alpha_boundary": 100.1}, ["`alpha_boundary`", "less than or equal to 100"]),
        ({"alpha_first": "1"}, ["`alpha_first`"]),
        ({"alpha_first": float("inf")}, ["JSON"]),
        ({"action": "zero"}, ["`zero`", "an alpha of 0 names a role", "1.5 means nothing"]),
        ({"action": "double"}, ["`action`", "steer"]),
        ({"reference": "batch"}, ["`reference`", "channel"]),
        ({"branches": []}, ["`branches`"]),
        ({"branches": ["uncond", "cond"]}, ["branches must be"]),
        ({"branches": ["cond", "cond"]}, ["branches must be"]),
        ({"branches": "cond"}, ["`branches`"]),
        ({"boundary_width": {"unit": "rows", "value": 1.5}}, ["`boundary_width`", "not a whole number"]),
        ({"boundary_width": {"unit": "fraction", "value": 0.5}}, ["`boundary_width`", "no interior"]),
        ({"boundary_width": {"unit": "pixels", "value": 1}}, ["`boundary_width.unit`", "fraction"]),
        ({"boundary_width": 8}, ["`boundary_width`"]),
        (
            {"boundary_width": {"unit": "rows", "value": 1, "more": 1}},
            ["unknown key `boundary_width.more`; valid: unit"],
        ),
        ({"channels": [41, 5]}, ["`channels`", "ascending"]),
        ({"layer": "blocks.1"}, ["unknown key `layer`", "layers"]),
        ({"recommended": {"guidance_scale": 4.0, "steps": 20}}, ["`recommended.height` is missing"]),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        StasSpec.create(**stas_fields(**changes))
    for word in words:
        assert word in str(caught.value)


def test_an_absent_alpha_is_written_as_null() -> None:
    given = stas_fields()
    del given["alpha_first"], given["alpha_boundary"]
    spec = StasSpec.create(**given)
    assert spec.idle
    data = json.loads(spec.to_json())
    assert (data["alpha_first"], data["alpha_boundary"], data["alpha_interior"]) == (None, None, None)
    del data["alpha_first"]
    with pytest.raises(SpecError, match="`alpha_first` is missing; every key is required"):
        parse_spec(data)


def test_specs_of_the_two_methods_are_told_apart() -> None:
    """Detail Guidance files of version 2 are what they were: one of this kind, with the hash it had then, is read."""
    guidance, stas = DetailGuidanceSpec.create(**fields()), StasSpec.create(**stas_fields())
    assert type(parse_spec(json.loads(guidance.to_json()))) is DetailGuidanceSpec
    assert guidance.content_hash == "sha256:f1fdfcc82ac92ea7b3bfc1450648e989f04a6fa2ed8dbeaf7c2d722f0923f4e4"
    mixed = {**json.loads(stas.to_json()), "method": "detail_guidance"}
    with pytest.raises(SpecError, match="key `layer` is missing|unknown key"):
        parse_spec(mixed)
    assert not VALIDATOR.is_valid(mixed)


def test_json_schema_refuses_what_is_no_spec() -> None:
    data = json.loads(StasSpec.create(**stas_fields()).to_json())
    VALIDATOR.validate(data)
    for broken in (
        {**data, "surprise": 1},
        {**data, "alpha_first": "1"},
        {**data, "layers": []},
        {**data, "branches": ["degraded"]},
        {key: value for key, value in data.items() if key != "alpha_interior"},
    ):
        assert not VALIDATOR.is_valid(broken)


def test_every_key_is_explained_in_docs() -> None:
    page = (ROOT / "docs" / "spec.md").read_text()
    keys = {
        *StasSpec.model_fields,
        *stas_spec.BoundaryWidth.model_fields,
        *stas_spec.RecommendedVideo.model_fields,
    }
    assert not [key for key in keys if f"`{key}`" not in page and f'"{key}"' not in page]
