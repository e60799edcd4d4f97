"""What a recording is: schema, creating, opening, verifying. Knows nothing about models."""

from workbench.store.open import open_recording, read_attributes
from workbench.store.schema import FORMAT, SCHEMA_VERSION
from workbench.store.verify import Verdict, verify

__all__ = ["FORMAT", "SCHEMA_VERSION", "Verdict", "open_recording", "read_attributes", "verify"]
