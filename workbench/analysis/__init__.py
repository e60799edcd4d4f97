"""What a recording says: pure functions from a recording to evidence, for an analyst without a GPU.

Nothing here imports torch, diffusers or nnsight. One analysis a module; the function has the module's name::

    from workbench.analysis.locate import locate
    from workbench.analysis.modulation import modulation
    from workbench.analysis.causal import causal

Each takes a recording (`docs/schema.md`) first and options by keyword, and returns a Dataset whose
attributes say what was asked (`analysis`, `criterion`, `parameters`, `seed`, `version`), of how much
(`n_samples`, `n_prompts`, `n_replicates`) and what came out (`verdict`, `verdict_reason`).
"""
