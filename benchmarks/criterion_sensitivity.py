"""Show how far the default criterion's answer on a recording depends on its parameters.

python -m benchmarks.criterion_sensitivity STORE     a table: one parameter changed at a time, the channels then found

and, where full states were recorded, how far the median of |h| from statistics is from the exact one.
"""

from __future__ import annotations

import argparse

import numpy as np
import xarray as xr

import workbench
from workbench.analysis.criteria import CRITERIA, median_abs, recurrence
from workbench.analysis.visits import Visits

SWEEP = {
    "ratio": (2.0, 3.0, 4.0, 5.0, 6.0, 8.0),
    "outlier_level": (1.0, 0.1, 0.01, 0.001, 0.0001),
    "token_share": (0.1, 0.3, 0.5, 0.6, 0.7, 0.8),
    "sample_fraction": (0.25, 0.5, 0.75, 1.0),
    "timestep_fraction": (0.1, 0.25, 0.5, 0.75, 1.0),
    "layer_fraction": (0.1, 0.25, 0.5, 0.75, 1.0),
}


def sweep(visits: Visits) -> list[str]:
    """Rows of a Markdown table: parameter, value, channels found in the model."""
    criterion = CRITERIA["workbench"]
    labels = visits.recording["channel"].values
    rows = ["| parameter | value | channels found |", "|---|---:|---|"]
    for name, values in SWEEP.items():
        for value in values:
            parameters = criterion.resolve({name: value})
            mask = criterion.rule(visits, **{key: parameters[key] for key in criterion.own_parameters})
            found = labels[recurrence(mask, visits.blocks, parameters).massive_channel_C]
            default = " (default)" if value == criterion.parameters[name] else ""
            listed = ", ".join(map(str, found[:12])) + (f", … {len(found)} in all" if len(found) > 12 else "")
            rows.append(f"| {name} | {value:g}{default} | {listed or 'none'} |")
    return rows


def median_errors(recording: xr.Dataset, branch: str, most: int = 150) -> np.ndarray:
    """Relative error of the median of |h| from statistics, at visits spread evenly over the recording."""
    exact = Visits(recording, branch)
    estimated = Visits(recording.drop_vars("hidden"), branch)
    shape = exact.mean_abs_SLTC.shape[:3]
    flat = np.unique(np.linspace(0, np.prod(shape) - 1, most).round().astype(int))
    visits = [tuple(map(int, np.unravel_index(i, shape))) for i in flat]
    return np.asarray([median_abs(estimated, *visit) / median_abs(exact, *visit) - 1 for visit in visits])


def main() -> None:
    """Print the table for a store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", help="a recording")
    parser.add_argument("--branch", default="cond")
    arguments = parser.parse_args()
    recording = workbench.open(arguments.store)
    visits = Visits(recording, arguments.branch)
    blocks = visits.average(visits.ratio_to_median_SLTC.mean(axis=2))[visits.blocks]
    print(f"{visits.replication}; largest ratio to the median channel at a block: {blocks.max():.1f}\n")
    print("\n".join(sweep(visits)))
    if visits.has_hidden:
        errors = median_errors(recording, arguments.branch)
        print(
            f"\nmedian of |h| from statistics, {len(errors)} visits: {errors.mean():+.1%} on average, "
            f"at most {np.abs(errors).max():.1%} off"
        )


if __name__ == "__main__":
    main()
