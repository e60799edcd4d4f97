"""What each DiT family looks like; loading, identity and the embedded models."""

from workbench.models.fingerprint import fingerprint
from workbench.models.layout import FAMILIES, Layout, layout_for
from workbench.models.load import DTYPES, call_defaults, load_pipeline
from workbench.models.mini import EMBEDDED, embedded_path

__all__ = [
    "DTYPES",
    "EMBEDDED",
    "FAMILIES",
    "Layout",
    "call_defaults",
    "embedded_path",
    "fingerprint",
    "layout_for",
    "load_pipeline",
]
