"""Record the hidden states of a generation into a store."""

from workbench.callable import make_callable
from workbench.record.plan import Plan, make_plan
from workbench.record.run import DEFAULT_BUDGET, prepare, record
from workbench.record.settings import Settings, make_settings, read_prompts

__all__ = [
    "DEFAULT_BUDGET",
    "Plan",
    "Settings",
    "make_plan",
    "make_settings",
    "prepare",
    "read_prompts",
    "record",
]

make_callable(__name__, record)
