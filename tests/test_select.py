"""One language for parts of a recording: the same clause means the same thing everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from workbench.errors import SelectionError
from workbench.select import Select, resolve

LAYERS = ["input", *(f"transformer_blocks.{i}" for i in range(12))]


@pytest.mark.parametrize(
    ("clause", "positions"),
    [
        (None, list(range(13))),
        ("all", list(range(13))),
        ("input", [0]),
        ("transformer_blocks.3", [4]),
        ("0,2,-1", [0, 2, 12]),
        ("4:8", [4, 5, 6, 7]),
        ("::6", [0, 6, 12]),
        ("-2:", [11, 12]),
        ((3, "input"), [0, 3]),
        ([5], [5]),
        (5, [5]),
    ],
)
def test_clauses_pick_what_they_say(clause: object, positions: list[int]) -> None:
    assert Select(layers=clause).positions("layer", LAYERS) == positions


@pytest.mark.parametrize(
    ("clause", "message"),
    [
        ("transformer_blocks.12", "no layer named 'transformer_blocks.12'.*positions 0 to 12; the layers are: input"),
        ("13", "no layer at position 13"),
        ((-14,), "no layer at position -14"),
        ("9:9", "picks nothing"),
        ("1:2:0", "not a slice"),
        ("a:b", "not a slice"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(clause: object, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        Select(layers=clause).positions("layer", LAYERS)


def test_unknown_clauses_are_refused() -> None:
    with pytest.raises(ValidationError, match="layer_range"):
        Select(layer_range="1:2")


@given(st.integers(1, 40), st.data())
def test_slices_pick_what_python_slices_pick(size: int, data: st.DataObject) -> None:
    start, stop = data.draw(st.integers(-size, size)), data.draw(st.integers(-size, size))
    expected = list(range(size))[start:stop]
    if expected:
        assert resolve(f"{start}:{stop}", "token", range(size)) == expected
    else:
        with pytest.raises(SelectionError):
            resolve(f"{start}:{stop}", "token", range(size))


@given(st.lists(st.integers(-10, 9), min_size=1))
def test_positions_come_sorted_and_once(positions: list[int]) -> None:
    assert resolve(tuple(positions), "channel", range(10)) == sorted({p % 10 for p in positions})


@given(st.sampled_from(["0:3", "1,2", "input", None]))
def test_a_selection_survives_its_own_json(clause: str | None) -> None:
    select = Select(layers=clause, branches=["cond"])
    assert Select.model_validate_json(select.model_dump_json()) == select
