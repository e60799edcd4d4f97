"""What each DiT family looks like; loading, identity and the embedded models."""

from workbench.models.altered import refuse_altered
from workbench.models.fingerprint import component_hashes, embedding_hash, fingerprint
from workbench.models.generate import (
    Encode,
    Generated,
    call_arguments,
    call_defaults,
    checked_size,
    generate,
    is_steered,
    makes_videos,
)
from workbench.models.layout import Layout
from workbench.models.load import DTYPES, load_pipeline
from workbench.models.mini import EMBEDDED, embedded_path
from workbench.models.noise import noise_levels
from workbench.models.registry import guidance_of, layout_for, pipeline_of
from workbench.models.rows import FAMILIES

__all__ = [
    "DTYPES",
    "EMBEDDED",
    "FAMILIES",
    "Encode",
    "Generated",
    "Layout",
    "call_arguments",
    "call_defaults",
    "checked_size",
    "component_hashes",
    "embedded_path",
    "embedding_hash",
    "fingerprint",
    "generate",
    "guidance_of",
    "is_steered",
    "layout_for",
    "load_pipeline",
    "makes_videos",
    "noise_levels",
    "pipeline_of",
    "refuse_altered",
]
