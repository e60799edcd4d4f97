"""Roles of a video's tokens: who is first, boundary and interior, and what has no roles."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import RoleError, SelectionError
from workbench.roles import ROLES, default_width, grid_of, roles, roles_of, roles_of_grid, width_of, with_roles
from workbench.select import Select


def video(grid: tuple[int, int, int] = (3, 3, 4), **attrs: object) -> xr.Dataset:
    """Tokens of a grid, with a variable that tells them apart."""
    frame, row, column = np.indices(grid).reshape(3, -1)
    return xr.Dataset(
        {"h_norm": ("token", np.arange(frame.size))},
        coords={"frame": ("token", frame), "row": ("token", row), "column": ("token", column)},
        attrs=attrs,
    )


def test_roles_by_hand() -> None:
    found = roles_of(video((3, 3, 2)), 1)
    later = ["boundary", *["interior"] * 4, "boundary"]
    assert found.tolist() == ["first"] * 6 + later * 2


def test_a_width_of_one_row_is_the_first_and_the_last_row_of_every_later_frame() -> None:
    ds = video((4, 5, 3))
    found = roles_of(ds, 3)
    edge = ds.row.isin([0, 4]).values
    assert (found[ds.frame.values == 0] == "first").all()
    later = ds.frame.values > 0
    assert np.array_equal(found[later] == "boundary", edge[later])
    assert np.array_equal(found[later] == "interior", ~edge[later])


@given(st.integers(2, 4), st.integers(1, 6), st.integers(1, 6), st.data())
def test_every_token_has_one_role_and_every_later_frame_two_ends(
    depth: int, height: int, columns: int, data: st.DataObject
) -> None:
    size = height * columns
    if size < 3:
        with pytest.raises(RoleError):
            roles_of_grid((depth, height, columns), 1)
        return
    width = data.draw(st.integers(1, (size - 1) // 2))
    by_frame = roles_of_grid((depth, height, columns), width).reshape(depth, size)
    counts = [[int((run == role).sum()) for role in ROLES] for run in by_frame]
    assert counts == [[size, 0, 0]] + [[0, 2 * width, size - 2 * width]] * (depth - 1)
    assert all(run[:width].tolist() == run[-width:].tolist() == ["boundary"] * width for run in by_frame[1:])


@pytest.mark.parametrize("width", [0, -1, 6, 100, 1.5, True, "row"])
def test_a_width_that_leaves_a_role_empty_is_refused_by_value_with_what_is_valid(width: object) -> None:
    with pytest.raises(
        RoleError, match=r"boundary_width = .* 12 tokens a frame; valid is a whole number of tokens from 1 to 5"
    ):
        roles_of(video((2, 3, 4)), width)  # type: ignore[arg-type]


def test_an_image_has_no_roles() -> None:
    for call in (
        lambda: roles_of(video((1, 4, 4)), 2),
        lambda: with_roles(video((1, 4, 4))),
        lambda: roles([0], [0], 9, 1),
    ):
        with pytest.raises(RoleError, match="two .*frames|video"):
            call()


def test_a_part_of_the_tokens_is_refused_because_its_ends_are_not_known() -> None:
    with pytest.raises(RoleError, match="not all of a grid"):
        roles_of(video().isel(token=slice(3, None)), 2)
    damaged = {"frame": np.array([0, 1 << 40]), "row": np.array([0, 1 << 40]), "column": np.array([0, 1 << 40])}
    with pytest.raises(RoleError, match="These are 2 tokens, not all of a grid"):
        roles_of(damaged, 2)
    with pytest.raises(RoleError, match="no 'row'"):
        roles_of({"frame": np.zeros(3)}, 1)


def test_the_width_is_the_given_one_then_the_recordings_then_one_row() -> None:
    ds = video((3, 5, 4))
    assert (width_of(ds), width_of(ds.assign_attrs(boundary_width=7))) == (4, 7)
    assert (roles_of(ds.assign_attrs(boundary_width=7)) == "boundary").sum() == 2 * 2 * 7
    assert (roles_of(ds.assign_attrs(boundary_width=7), 2) == "boundary").sum() == 2 * 2 * 2
    assert default_width(grid_of(ds)) == (4, "default: one row of tokens")


def test_the_default_says_where_one_row_does_not_fit() -> None:
    width, source = default_width((2, 2, 3))
    assert width == 2
    assert source == "default: the most that leaves an interior (2 rows of 3 tokens a frame)"
    with pytest.raises(RoleError, match="2 x 1 x 2 tokens .* at least three"):
        default_width((2, 1, 2))


def test_another_width_gives_another_recording_and_leaves_the_first() -> None:
    ds = with_roles(video())
    other = with_roles(ds, 1)
    assert (ds.attrs["boundary_width"], ds.attrs["boundary_width_source"]) == (4, "default: one row of tokens")
    assert (other.attrs["boundary_width"], other.attrs["boundary_width_source"]) == (1, "given")
    assert (int((ds.role == "boundary").sum()), int((other.role == "boundary").sum())) == (16, 4)
    assert with_roles(ds) is ds
    assert with_roles(video(boundary_width=3, boundary_width_source="given")).attrs["boundary_width"] == 3


def test_a_role_selects_all_of_its_tokens_alone_and_together() -> None:
    ds = with_roles(video((3, 3, 4)), 2)
    picked = Select(tokens="first").positions("token", ds.role.values)
    assert picked == list(range(12))
    both = Select(tokens=("first", "boundary")).positions("token", ds.role.values)
    assert ds.role.values[both].tolist() == ["first"] * 12 + ["boundary"] * 8
    assert Select(tokens="interior, 0").positions("token", ds.role.values)[0] == 0
    with pytest.raises(SelectionError, match="no token named 'middle'.*tokens are: first, boundary, interior"):
        Select(tokens="middle").positions("token", ds.role.values)
