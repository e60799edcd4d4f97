"""Which part of a video's latents a token belongs to: the first frame, the boundary of a later frame, or its interior.

The tokens of one latent frame are one contiguous run of the flattened sequence, in raster order. STAS (Cheng et al., arXiv
2603.17825) speaks of "head and tail portions of each temporal chunk in the latent space" without saying how long they are;
here the *width* is a number of tokens, the same at head and tail, and always written down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import RoleError

if TYPE_CHECKING:
    import xarray as xr

#: In the order of the hierarchy that STAS reports, largest first.
ROLES = ("first", "boundary", "interior")

#: What `boundary_width_source` says of a width that nobody gave.
ONE_ROW = "default: one row of tokens"


def roles(frame: Any, position: Any, tokens_per_frame: int, width: int) -> np.ndarray:
    """Role of every token.

    Parameters
    ----------
    frame : array (N,) of int
        Latent frame of each token, from 0.
    position : array (N,) of int
        Place of each token in its frame's run, in raster order, from 0.
    tokens_per_frame : int
        S, rows × columns.
    width : int
        Tokens at the head, and as many at the tail, of every later frame's run that are boundary tokens.

    Returns
    -------
    array (N,) of str
        One of `ROLES`: "first" in frame 0; in later frames "boundary" where position < width or position >= S - width,
        else "interior".

    Raises
    ------
    RoleError
        If the width is no whole number from 1 to what leaves an interior, or there is one frame only.
    """
    frames, places = np.asarray(frame), np.asarray(position)
    if frames.size == 0 or frames.max() == 0:
        raise RoleError(
            "Tokens have roles in a video of at least two latent frames; this is an image, or a video of one latent frame."
        )
    _refuse_width(width, tokens_per_frame)
    edge = (places < width) | (places >= tokens_per_frame - width)
    return np.where(frames == 0, ROLES[0], np.where(edge, ROLES[1], ROLES[2]))


def roles_of_grid(grid: tuple[int, int, int], width: int) -> np.ndarray:
    """Role of every token of a grid (F, H, W), flattened; see :func:`roles`."""
    depth, height, columns = grid
    index = np.arange(depth * height * columns)
    return roles(index // (height * columns), index % (height * columns), height * columns, width)


def roles_of(tokens: xr.Dataset | xr.DataArray | Mapping[str, Any], width: int | None = None) -> np.ndarray:
    """Role of every token of a recording, or of whatever has its coordinates `frame`, `row` and `column`.

    Parameters
    ----------
    tokens : Dataset, DataArray or mapping
        All tokens of the grid, in order; select among them afterwards.
    width : int, optional
        None stands for the recording's own (attribute `boundary_width`), and where it has none for
        :func:`default_width`.

    Raises
    ------
    RoleError
        As :func:`roles`; if tokens are missing; or if the recording says why its tokens have none (attribute `no_roles`).
    """
    why = getattr(tokens, "attrs", {}).get("no_roles")
    if why:
        raise RoleError(f"{why} Its tokens have no roles.")
    grid = grid_of(tokens)
    return roles_of_grid(grid, width_of(tokens) if width is None else width)


def grid_of(tokens: xr.Dataset | xr.DataArray | Mapping[str, Any]) -> tuple[int, int, int]:
    """Token grid (F, H, W) of what has the coordinates `frame`, `row` and `column`.

    Raises
    ------
    RoleError
        If they aren't there, or are not those of all tokens in raster order.
    """
    try:
        places = [np.asarray(tokens[name]).reshape(-1) for name in ("frame", "row", "column")]
    except KeyError as error:
        raise RoleError(
            f"Tokens need the coordinates frame, row and column to have roles; there is no {error}."
        ) from error
    grid = tuple(int(place.max(initial=-1)) + 1 for place in places)
    # Their number first: a coordinate of a damaged store may be anything, and the whole grid then larger than memory.
    if math.prod(grid) != places[0].size or not all(map(np.array_equal, places, np.indices(grid).reshape(3, -1))):
        raise RoleError(
            f"These are {places[0].size} tokens, not all of a grid of {grid[0]} x {grid[1]} x {grid[2]} in raster order. Take "
            "the roles of the whole recording, and select tokens afterwards."
        )
    return grid  # type: ignore[return-value]


def width_of(tokens: xr.Dataset | xr.DataArray | Mapping[str, Any]) -> int:
    """Boundary width in tokens: that of the recording, or the default where it says none."""
    given = getattr(tokens, "attrs", {}).get("boundary_width")
    return int(given) if given is not None else default_width(grid_of(tokens))[0]


def default_width(grid: tuple[int, int, int]) -> tuple[int, str]:
    """Width for a grid (F, H, W) when nobody gives one, and what to write down about it.

    One row of tokens is a choice of this workbench, not of any paper (methods.md, H 2): it is the smallest that covers an
    edge of the frame. Where a frame has two rows only, it would leave no interior; the width is then the largest that does.

    Raises
    ------
    RoleError
        If a frame has fewer than three tokens, or there is one frame only.
    """
    depth, height, columns = grid
    most = (height * columns - 1) // 2
    if depth < 2 or most < 1:
        raise RoleError(
            f"A grid of {depth} x {height} x {columns} tokens (frames x rows x columns) has no roles: they need two frames of "
            "at least three tokens. An image has none; record a video of more frames, or a larger one."
        )
    if columns <= most:
        return columns, ONE_ROW
    return (
        most,
        f"default: the most that leaves an interior ({height} row{'s' * (height > 1)} of {columns} tokens a frame)",
    )


def with_roles(recording: xr.Dataset, width: int | None = None) -> xr.Dataset:
    """The recording with the roles of another boundary width; nothing is copied or changed in place.

    Parameters
    ----------
    recording : Dataset
        Of a video; an old one without roles gets some.
    width : int, optional
        None leaves those that it has.

    Raises
    ------
    RoleError
        As :func:`roles_of`.
    """
    source = "given"
    if width is None:
        if "role" in recording.coords and "boundary_width" in recording.attrs:
            return recording
        width, source = width_of(recording), recording.attrs.get("boundary_width_source", "")
        source = source or default_width(grid_of(recording))[1]
    named = recording.assign_coords(role=("token", roles_of(recording, width)))
    return named.assign_attrs(boundary_width=int(width), boundary_width_source=source)


def _refuse_width(width: Any, tokens_per_frame: int) -> None:
    most = (tokens_per_frame - 1) // 2
    if not isinstance(width, Integral) or isinstance(width, bool) or not 1 <= int(width) <= most:
        valid = f"a whole number of tokens from 1 to {most}" if most else "none: a frame needs three tokens or more"
        raise RoleError(
            f"boundary_width = {width!r} can't be used with {tokens_per_frame} tokens a frame; valid is {valid}, so that head, "
            "tail and interior have a token each."
        )
