"""All rows: one a transformer class of diffusers, and the classes that are known and refused."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workbench.models.layout import Layout
from workbench.models.rows import (
    image,
    image_joined,
    joint,
    joint_joy,
    joint_more,
    other,
    video_cog,
    video_more,
    video_other,
    video_wan,
)

_MODULES = (joint, joint_more, joint_joy, image, image_joined, video_wan, video_cog, video_other, video_more, other)

FAMILIES: tuple[Layout, ...] = tuple(row for module in _MODULES for row in module.ROWS)

#: Transformer class → why it is refused.
REFUSED: Mapping[str, str] = MappingProxyType(
    {name: why for module in _MODULES for name, why in module.REFUSED.items()}
)
