"""A pipeline whose first token frame is not the video's first: its tokens have no roles, and nobody gives them any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.families.base import Family
from tests.families.check import PROMPTS
from tests.families.test_recorded import options, pytestmark  # noqa: F401 (marks of this module too)
from tests.families.video_wan_kin import FAMILIES
from workbench.errors import RoleError
from workbench.record import record
from workbench.roles import roles_of, with_roles
from workbench.store import open_recording


def recorded(out: Path, **more: Any) -> Path:
    family: Family = next(family for family in FAMILIES if family.name == "wan-animate")
    pipe = family.build()
    chosen, encode = options(family, pipe, guided=False)
    return record(
        pipe, prompts=list(PROMPTS[:1]), steps=1, tier="stats", encode=encode, out=out, progress=False, **chosen, **more
    )


def test_tokens_of_a_picture_in_front_have_no_roles(tmp_path: Path) -> None:
    found = open_recording(recorded(tmp_path / "s.zarr"))
    assert found.attrs["no_roles"].startswith("The first token frame holds the picture of the character, not the")
    assert "role" not in found.coords
    for ask in (roles_of, with_roles, lambda recording: with_roles(recording, 1)):
        with pytest.raises(RoleError, match="picture of the character"):
            ask(found)  # type: ignore[operator]


def test_a_width_is_refused_where_there_are_no_roles(tmp_path: Path) -> None:
    with pytest.raises(RoleError, match="leave boundary_width out"):
        recorded(tmp_path / "s.zarr", boundary_width=1)
