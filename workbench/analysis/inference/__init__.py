"""What may be said about prompts not seen: intervals, tests, corrections, equivalence, a minimum n.

Every function takes arrays whose first axis is the replicates and nothing else that could be mistaken for replication;
`by_prompt` makes it. What stands where:

* `replicates`: what a replicate is, how many are too few;
* `intervals`: intervals of means and of functions of means (cluster bootstrap; percentile, expanded, BCa);
* `permutation`: sign flips, labels permuted inside replicates, the largest statistic over columns;
* `spread`: a standard deviation with bounds;
* `multiplicity`: Holm, Benjamini-Hochberg, exact bounds of shares;
* `verdicts`: TOST, how many replicates it takes, the three verdicts.

Legend: S samples, P prompts, R replicates or resamples, X anything else.
"""

from workbench.analysis.inference.intervals import Interval, Method, bootstrap, bootstrap_mean
from workbench.analysis.inference.multiplicity import adjust, proportion_high, proportion_low
from workbench.analysis.inference.permutation import (
    Permuted,
    max_statistic,
    permute_within,
    sign_flip,
    sign_flip_vectors,
)
from workbench.analysis.inference.replicates import MINIMUM_SAMPLES, Floats, by_prompt
from workbench.analysis.inference.spread import standard_deviation
from workbench.analysis.inference.verdicts import (
    MOST,
    Decision,
    Equivalence,
    Verdict,
    decide,
    enough_for,
    equivalence,
    largest_difference,
    needed_n,
)

__all__ = [
    "MINIMUM_SAMPLES",
    "MOST",
    "Decision",
    "Equivalence",
    "Floats",
    "Interval",
    "Method",
    "Permuted",
    "Verdict",
    "adjust",
    "bootstrap",
    "bootstrap_mean",
    "by_prompt",
    "decide",
    "enough_for",
    "equivalence",
    "largest_difference",
    "max_statistic",
    "needed_n",
    "permute_within",
    "proportion_high",
    "proportion_low",
    "sign_flip",
    "sign_flip_vectors",
    "standard_deviation",
]
