"""Names of the parts of an AdaLN modulation, in the orders in which the models have them."""

from __future__ import annotations

#: AdaLN-Zero: attention, then feed-forward.
SIX = ("shift_msa", "scale_msa", "gate_msa", "shift_mlp", "scale_mlp", "gate_mlp")

#: No shift.
SCALE_GATE = ("scale_msa", "gate_msa", "scale_mlp", "gate_mlp")
