"""All rows: one a transformer class of diffusers, and the classes that are known and refused."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.models.layout import Layout
from workbench.models.rows import image, joint, video_cog, video_other, video_wan

FAMILIES: tuple[Layout, ...] = (*joint.ROWS, *joint_more.ROWS, *image.ROWS, *video_wan.ROWS, *video_cog.ROWS, *video_other.ROWS)

#: Transformer class → why it is refused.
REFUSED: Mapping[str, str] = MappingProxyType(
    {**joint.REFUSED, **joint_more.REFUSED, **image.REFUSED, **video_wan.REFUSED, **video_cog.REFUSED, **video_other.REFUSED}
)
