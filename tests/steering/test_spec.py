"""A spec survives the trip to disk and back, and nothing else does."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.steering.helpers import fields
from workbench.errors import SpecError
from workbench.steering import parts
from workbench.steering.canonical import MAX_BYTES, depth
from workbench.steering.spec import DetailGuidanceSpec, json_schema, load_spec, parse_spec, save_spec

ROOT = Path(__file__).parents[2]
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

unit = st.floats(0, 1)
text = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(-1e300, 1e300) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
).filter(lambda value: depth(value, 6) < 6)


@st.composite
def specs(draw: Any) -> DetailGuidanceSpec:
    low, high = sorted((draw(unit), draw(unit)))
    base = fields()
    action = draw(st.sampled_from(["zero", "scale", "mean"]))
    ramp = {"knots": [[0.25, draw(unit)], [0.75, draw(unit)]]}
    return DetailGuidanceSpec.create(
        **fields(
            channels=sorted(draw(st.sets(st.integers(0, 10_000), min_size=1, max_size=8))),
            action=action,
            retention=draw(st.sampled_from([0.5, ramp])) if action == "scale" else None,
            weight=draw(st.floats(-100, 100) | st.just(ramp)),
            layer=draw(st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,9}(\.[A-Za-z0-9_]{1,5}){0,3}\Z")),
            window={"unit": draw(st.sampled_from(["sigma", "step_fraction"])), "low": low, "high": high},
            evidence={
                **base["evidence"],
                "notes": draw(st.dictionaries(text, json_values, max_size=3)),
                "rule": draw(st.text(max_size=50)),
            },
        )
    )


@quick
@given(specs())
def test_round_trip(tmp_path: Path, spec: DetailGuidanceSpec) -> None:
    path = save_spec(spec, tmp_path / "spec.json", overwrite=True)
    assert load_spec(path) == spec
    first = path.read_bytes()
    save_spec(load_spec(path), path, overwrite=True)
    assert path.read_bytes() == first


@quick
@given(specs(), st.data())
def test_no_byte_can_change_the_content(tmp_path: Path, spec: DetailGuidanceSpec, data: Any) -> None:
    """Refused, or white space: then what is loaded is the same spec."""
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


def test_every_letter_and_digit_counts(tmp_path: Path) -> None:
    """The exhaustive form of the test above for one spec: each character that says something, replaced."""
    spec = DetailGuidanceSpec.create(**fields())
    original = spec.to_json()
    path = tmp_path / "spec.json"
    refused = 0
    for position, old in enumerate(original):
        if old.isspace():
            continue
        path.write_text(original[:position] + ("7" if old != "7" else "8") + original[position + 1 :])
        with pytest.raises(SpecError):
            load_spec(path)
        refused += 1
    assert refused > 700


def leaves(value: Any, path: tuple = ()) -> list[tuple]:
    if isinstance(value, dict):
        return [path, *(leaf for key in value for leaf in leaves(value[key], (*path, key)))]
    if isinstance(value, list):
        return [path, *(leaf for i, item in enumerate(value) for leaf in leaves(item, (*path, i)))]
    return [path]


def changed(data: Any, path: tuple, change: Any) -> Any:
    copy = json.loads(json.dumps(data))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    change(inner, path[-1])
    return copy


def test_any_field_altered_or_removed_is_refused() -> None:
    data = json.loads(DetailGuidanceSpec.create(**fields()).to_json())
    others = [None, True, 0, -1, 0.5, "", "x", [], {}, [0], 1e300, 10**30]
    places = [path for path in leaves(data) if path]
    assert len(places) > 35
    for path in places:
        with pytest.raises(SpecError):
            parse_spec(changed(data, path, lambda inner, key: inner.pop(key)))
        for other in others:
            old = data
            for key in path:
                old = old[key]
            numbers = {type(other), type(old)} <= {int, float}  # 0 and 0.0 are one number, False is none
            if other == old and (numbers or type(other) is type(old)):
                continue
            with pytest.raises(SpecError):
                parse_spec(changed(data, path, lambda inner, key, other=other: inner.__setitem__(key, other)))


def test_unknown_keys_are_refused_and_named() -> None:
    data = json.loads(DetailGuidanceSpec.create(**fields()).to_json())
    for path in [(), ("model",), ("window",), ("recommended",), ("evidence",)]:
        altered = changed({"_": data}, ("_", *path), lambda inner, key: inner[key].update(surprise=1))["_"]
        with pytest.raises(SpecError, match=r"unknown key `([a-z]+\.)?surprise`; valid: \w+, "):
            parse_spec(altered)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight": "1.5"}, ["`weight`", "valid number", "'1.5'"]),
        ({"weight": True}, ["`weight`"]),
        ({"weight": 101.0}, ["`weight`", "less than or equal to 100"]),
        ({"weight": float("nan")}, ["JSON"]),
        ({"channels": [41, 5]}, ["`channels`", "ascending"]),
        ({"channels": [5, 5]}, ["`channels`", "each once"]),
        ({"channels": []}, ["`channels`", "at least 1"]),
        ({"channels": [-1]}, ["`channels.0`", "greater than or equal to 0"]),
        ({"channels": [1.5]}, ["`channels.0`", "integer"]),
        ({"channels": list(range(257))}, ["`channels`", "at most 256"]),
        ({"layer": "blocks/4"}, ["`layer`"]),
        ({"action": "double"}, ["`action`", "zero"]),
        ({"branch": "uncond"}, ["`branch`", "cond"]),
        ({"window": {"unit": "sigma", "low": 0.9, "high": 0.1}}, ["`window`", "low = 0.9 is above high = 0.1"]),
        ({"window": {"unit": "steps", "low": 0.0, "high": 0.1}}, ["`window.unit`", "sigma", "step_fraction"]),
        ({"recommended": {"guidance_scale": 4.0, "steps": 0}}, ["`recommended.steps`"]),
        ({"surprise": 1}, ["unknown key `surprise`", "channels, content_hash"]),
    ],
)
def test_wrong_values_are_named(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        DetailGuidanceSpec.create(**fields(**changes))
    for word in words:
        assert word in str(caught.value)


def test_evidence_is_bounded() -> None:
    deep: Any = 1
    for _ in range(9):
        deep = [deep]
    with pytest.raises(SpecError, match="nests deeper than 8"):
        DetailGuidanceSpec.create(**fields(evidence={**fields()["evidence"], "notes": {"deep": deep}}))
    with pytest.raises(SpecError, match="bytes, at most 262144"):
        DetailGuidanceSpec.create(**fields(evidence={**fields()["evidence"], "notes": {"long": "x" * 300_000}}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1, 2]", "holds a JSON list"),
        (b'{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (b'{"weight": NaN}', "NaN is not finite"),
        (b'{"weight": -Infinity}', "-Infinity is not finite"),
        (b'{"weight": 1e999}', "1e999 is not finite"),
        (b'{"weight": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[" * 500_000, "is not JSON"),
        (b" " * (MAX_BYTES + 1), "larger than 1048576 bytes"),
        (b"{}", "`format` is None"),
        (
            b'{"format": "workbench-spec", "spec_version": 3}',
            "`spec_version` is 3, and this version .* reads 2. Update",
        ),
        (
            b'{"format": "workbench-spec", "spec_version": 1}',
            "is 1, and this version .* reads 2. Derive the spec again",
        ),
        (b'{"format": "workbench-spec", "spec_version": true}', "`spec_version` is True"),
        (b'{"format": "workbench-spec", "spec_version": 2, "method": "magic"}', "'magic'; valid: detail_guidance"),
        (b'{"format": "workbench-spec", "spec_version": 2, "method": []}', "valid: detail_guidance"),
        (b'{"format": "workbench-spec", "spec_version": 2, "method": "detail_guidance"}', "`model` is missing"),
    ],
)
def test_foreign_files(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=words) as caught:
        load_spec(path)
    assert str(path) in str(caught.value)


def test_a_key_twice_is_found_in_linear_time(tmp_path: Path) -> None:
    """60,000 keys, each twice, once took a minute."""
    path = tmp_path / "spec.json"
    path.write_text("{" + ",".join(f'"k{i:05}":0' for i in [*range(40_000), *range(40_000)]) + "}")
    start = time.perf_counter()
    with pytest.raises(SpecError, match="the key 'k00000' is there twice"):
        load_spec(path)
    assert time.perf_counter() - start < 2
    path.write_text('{"' + "a" * 500 + '":0, "' + "a" * 500 + '":0}')
    with pytest.raises(SpecError, match="the key 'a{80}' is there twice"):
        load_spec(path)


def test_ends_of_a_window_belong_to_it_in_the_schedulers_precision() -> None:
    import numpy as np

    for bound in (0.1, 0.3, 0.6, 0.7, 0.9):
        window = parts.Window(unit="sigma", low=bound, high=bound)
        assert window.contains(float(np.float32(bound))), "float32(0.6) is 0.60000002, float32(0.7) is 0.69999999"
        assert not window.contains(bound + 1e-3)
        assert not window.contains(bound - 1e-3)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot read the spec .*No such file"):
        load_spec(tmp_path / "none.json")
    with pytest.raises(SpecError, match=r"cannot read the spec .*directory"):
        load_spec(tmp_path)


def test_saving_destroys_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, path = DetailGuidanceSpec.create(**fields()), tmp_path / "spec.json"
    path.write_text("mine")
    with pytest.raises(SpecError, match=r"already there.*overwrite=True"):
        save_spec(spec, path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(SpecError, match="No space left on device"):
            save_spec(spec, path, overwrite=True)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path], "no part is left lying about"
    save_spec(spec, path, overwrite=True)
    assert load_spec(path) == spec
    with pytest.raises(SpecError, match=r"cannot write .*No such file or directory"):
        save_spec(spec, tmp_path / "none" / "spec.json")


def test_replace_takes_a_new_hash_and_the_old_one_stays_valid() -> None:
    spec = DetailGuidanceSpec.create(**fields())
    other = spec.replace(weight=0.0)
    assert (other.weight, spec.weight) == (0.0, 1.5)
    assert other.content_hash != spec.content_hash
    assert spec.replace() == spec
    with pytest.raises(SpecError, match="altered"):
        save_spec(spec.model_copy(update={"weight": 0.0}), "never.json")


def test_json_schema_in_docs_is_the_models() -> None:
    """`python -m workbench.steering.spec > docs/spec.schema.json` writes it anew."""
    assert json.loads((ROOT / "docs" / "spec.schema.json").read_text()) == json_schema()


def test_json_schema_accepts_specs_and_refuses_others() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator = jsonschema.Draft202012Validator(json_schema())
    data = json.loads(DetailGuidanceSpec.create(**fields()).to_json())
    validator.validate(data)
    for broken in (
        {**data, "surprise": 1},
        {**data, "weight": "1"},
        {**data, "channels": []},
        {key: value for key, value in data.items() if key != "layer"},
    ):
        assert not validator.is_valid(broken)


def test_reading_a_spec_needs_no_torch() -> None:
    code = "import sys, workbench.steering.spec; assert not {'torch', 'diffusers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_key_is_explained_in_docs() -> None:
    page = (ROOT / "docs" / "spec.md").read_text()
    keys = {
        *DetailGuidanceSpec.model_fields,
        *parts.ModelRef.model_fields,
        *parts.Window.model_fields,
        *parts.WeightSchedule.model_fields,
        *parts.RetentionSchedule.model_fields,
        *parts.Recommended.model_fields,
        *parts.Evidence.model_fields,
    }
    assert not [key for key in keys if f"`{key}`" not in page and f'"{key}"' not in page]


def test_default_weight_in_docs_is_the_codes() -> None:
    from workbench.steering.derive import DEFAULT_WEIGHT

    assert f"| weight | {DEFAULT_WEIGHT} | default" in (ROOT / "docs" / "spec.md").read_text()
