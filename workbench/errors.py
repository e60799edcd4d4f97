"""One error type per area, so that callers can catch what they can mend and every message says what to do."""

from __future__ import annotations


class WorkbenchError(Exception):
    """Base of every error the workbench raises on purpose. The message names the value, the valid set, the fix."""


class SelectionError(WorkbenchError, ValueError):
    """A selection names a layer, timestep, branch, token or channel that does not exist."""


class RoleError(SelectionError):
    """Tokens have no roles (it is no video), or not with this boundary width."""


class UnsupportedModelError(WorkbenchError):
    """The model is not a diffusion transformer that the workbench knows, or it does not behave as its layout says."""


class RecordingError(WorkbenchError):
    """A recording could not be made or continued."""


class StoreError(WorkbenchError):
    """A store is missing, foreign, damaged, or made with other settings."""


class AnalysisError(WorkbenchError):
    """An analysis was asked for something the recording does not hold."""


class SpecError(WorkbenchError, ValueError):
    """A steering spec is malformed, was altered, or belongs to another model."""
