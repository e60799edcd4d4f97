"""The bundled sampler: the same seeds with and without steering, and numbers for what changed."""
