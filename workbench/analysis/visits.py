"""The visits of a recording, as arrays that the criteria compute on.

This is the only place in `analysis` that knows variable names and completeness; the rest sees arrays.

Legend: S samples, L layers, T timesteps, N tokens, C channels, K ranks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis import inference
from workbench.errors import AnalysisError

INPUT = "input"
"""Name of the layer that is no block: the state that enters the first one."""

TEXT = np.dtypes.StringDType()
"""Type of text in results: Zarr v3 specifies variable-length strings, but not numpy's fixed-width ones."""

_STATISTICS = ("h_mean_abs", "h_mean", "h_max_abs", "h_std")

_UNIT_DIMS = ("sample", "layer", "timestep")


def require(recording: xr.Dataset, *names: str) -> None:
    """Raise unless the recording holds these variables.

    Raises
    ------
    AnalysisError
        Naming what is missing, what is there, and what to do.
    """
    missing = [name for name in names if name not in recording.data_vars]
    if missing:
        there = ", ".join(sorted(map(str, recording.data_vars))) or "nothing"
        raise AnalysisError(
            f"the recording lacks {', '.join(missing)}; it holds {there}. Record again with `workbench record` "
            "(every tier keeps the statistics), or open the whole store instead of a part of it."
        )


def refuse_experiment(recording: xr.Dataset, known: Sequence[str] = ()) -> None:
    """Raise unless the recording is a trajectory, or one of the experiments the caller knows.

    Raises
    ------
    AnalysisError
        Naming the experiment and what reads it.
    """
    name = recording.attrs.get("experiment")
    if name and str(name) not in known:
        wanted = f"one of {', '.join(known)}" if known else "a trajectory"
        raise AnalysisError(
            f"this recording is the experiment {str(name)!r}: its dimension `timestep` lists cells with exchanged pieces, and "
            f"this analysis reads {wanted}. Use workbench.analysis.causal.causal for it, or pass "
            "workbench.analysis.causal.diagonal(recording), its cells in which nothing was exchanged."
        )
    if known and not name:
        raise AnalysisError(
            f"this recording is a trajectory, and this analysis reads {' or '.join(known)}: along a trajectory timestep and "
            f"noise level are confounded. Record with `--experiment {known[0]}`."
        )


def select_branch(recording: xr.Dataset, branch: str) -> xr.Dataset:
    """One branch of a recording, without the dimension.

    Raises
    ------
    AnalysisError
        If there is no such branch.
    """
    if "branch" not in recording.dims:
        there = [str(recording["branch"].values)] if "branch" in recording.coords else []
        if there == [branch]:
            return recording
        raise AnalysisError(
            f"the recording has no dimension `branch` (there is {there or 'no branch at all'}); "
            f"pass the recording as it was opened, and name the branch: branch={branch!r}."
        )
    names = [str(name) for name in recording["branch"].values]
    if branch not in names:
        raise AnalysisError(
            f"the recording has no branch {branch!r}; it has {', '.join(names)}. "
            "Choose one of these with branch=…; `uncond` is there only if guidance was on."
        )
    return recording.isel(branch=names.index(branch))


def divide(numerator: np.ndarray, denominator: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    """Divide where the denominator is above 0; elsewhere put `otherwise`."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    out = np.full(shape, otherwise, dtype=numerator.dtype)
    return np.asarray(np.divide(numerator, denominator, out=out, where=denominator > 0))


def decode_hidden(hidden: xr.DataArray) -> np.ndarray:
    """Values of `hidden` as float32; bfloat16 stored as bit patterns (uint16) is widened, which is exact."""
    values = np.asarray(hidden.values)
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


class Visits:
    """Statistics of every visit of one branch, of the complete samples only.

    Parameters
    ----------
    recording : xr.Dataset
        As in `docs/schema.md`; may be lazily loaded: each variable is read when it is first needed.
    branch : str
        Which branch.
    adaln : bool
        Ask of a complete sample that its AdaLN terms are finite too, where there are any.
    experiments : sequence of str
        Experiments that the caller knows how to read; default: none, trajectories only.

    Attributes
    ----------
    samples : list of int
        Labels of the samples used: every unit of theirs in this branch is present and finite.
    left_out : list of int
        Labels of the samples that are not complete.
    layers : list of str
        Names of the layers, `input` included where it was recorded.

    Raises
    ------
    AnalysisError
        If statistics or branch are missing, no sample is complete, or the recording is an experiment that the caller
        does not know.
    """

    def __init__(
        self, recording: xr.Dataset, branch: str, *, adaln: bool = False, experiments: Sequence[str] = ()
    ) -> None:
        refuse_experiment(recording, experiments)
        require(recording, "h_mean_abs")
        part = select_branch(recording, branch)
        self.branch = branch
        labels = [int(label) for label in part["sample"].values]
        complete = self._complete(part, adaln=adaln)
        self.samples = [label for label, good in zip(labels, complete, strict=True) if good]
        self.left_out = [label for label, good in zip(labels, complete, strict=True) if not good]
        if not self.samples:
            raise AnalysisError(
                f"none of the {len(labels)} samples of branch {branch!r} is complete: each has units that are absent "
                "or not finite. Run the same `workbench record` command again to finish the recording, or "
                "`workbench verify` to see what is missing."
            )
        self.recording = part.isel(sample=np.flatnonzero(complete))
        self.layers = [str(name) for name in part["layer"].values]

    @staticmethod
    def _complete(part: xr.Dataset, *, adaln: bool) -> np.ndarray:
        """Which samples have every unit, and only finite numbers in every statistic that is there; shape (S,)."""
        complete = np.ones(part.sizes["sample"], dtype=bool)
        checked = [part[name] for name in _STATISTICS if name in part]
        if adaln and "modulation" in part:  # NaN for `input` by design, which has no AdaLN
            blocks = np.flatnonzero(part["layer"].values != INPUT)
            checked.append(part["modulation"].isel(layer=blocks))
        for array in checked:
            finite = xr.apply_ufunc(np.isfinite, array, dask="allowed")
            complete &= np.asarray(finite.all([d for d in finite.dims if d != "sample"]).values)
        if "unit_checksum" in part:
            units = part["unit_checksum"]
            complete = complete & np.asarray((units != 0).all([d for d in units.dims if d != "sample"]).values)
        return complete

    def _array(self, name: str, *dims: str) -> np.ndarray:
        require(self.recording, name)
        return np.asarray(self.recording[name].transpose(*_UNIT_DIMS, *dims).values)

    @property
    def n(self) -> int:
        """Number of complete samples."""
        return len(self.samples)

    @cached_property
    def prompts(self) -> list[str]:
        """Prompt of each complete sample; where the recording does not say, each sample counts as its own."""
        names = self.recording["prompt"].values if "prompt" in self.recording.coords else self.samples
        return [str(name) for name in names]

    @property
    def replicate(self) -> str:
        """What is resampled: ``prompt``, or ``seed`` where there is one prompt only."""
        return "prompt" if len(set(self.prompts)) > 1 else "seed"

    @property
    def n_replicates(self) -> int:
        """How many of them there are: the n of every interval and verdict."""
        return len(set(self.prompts)) if self.replicate == "prompt" else self.n

    @property
    def replication(self) -> str:
        """How many samples of what, in words: ``8 prompts × 2 seeds``."""
        names = self.prompts
        if self.replicate == "seed":
            return f"{self.n} seed{'s' if self.n != 1 else ''} of one prompt"
        counts = {names.count(name) for name in names}
        if len(counts) > 1:
            return f"{self.n_replicates} prompts with {min(counts)} to {max(counts)} seeds each"
        return f"{self.n_replicates} prompts × {min(counts)} seed{'s' if counts != {1} else ''}"

    def by_prompt(self, values_SX: np.ndarray) -> np.ndarray:
        """Mean over the samples of each prompt; unchanged where there is one prompt only."""
        return inference.by_prompt(values_SX, self.prompts)[0]

    def average(self, values_SX: np.ndarray) -> np.ndarray:
        """Mean over samples in which every prompt weighs the same."""
        return np.asarray(self.by_prompt(values_SX).mean(axis=0))

    @cached_property
    def blocks_missing(self) -> tuple[int, int] | None:
        """Blocks recorded and blocks of the model, where these are fewer; None if all are there or it is not known."""
        total, there = _of_model(self.recording, "blocks"), int(self.blocks.sum())
        return (there, total) if total is not None and there < total else None

    @cached_property
    def channels_missing(self) -> tuple[int, int] | None:
        """Channels recorded and channels of the model, where these are fewer; None if all are there or not known."""
        total, there = _of_model(self.recording, "channels"), int(self.recording.sizes["channel"])
        return (there, total) if total is not None and there < total else None

    def need_all_channels(self) -> None:
        """Raise `AnalysisError` if the recording is known to hold a part of the channels."""
        if self.channels_missing:
            there, total = self.channels_missing
            raise AnalysisError(
                f"only {there} of the model's {total} channels were recorded, so the median and the mean over channels, "
                "against which massive channels are judged, are not known. Record all channels (the statistics of all are "
                "small); `modulation` can follow chosen channels in such a recording."
            )

    @cached_property
    def blocks(self) -> np.ndarray:
        """Which layers are blocks (all but `input`), as bool; shape (L,)."""
        return np.asarray([name != INPUT for name in self.layers])

    @cached_property
    def mean_abs_SLTC(self) -> np.ndarray:
        """Mean over tokens of abs(h)."""
        return self._array("h_mean_abs", "channel")

    @cached_property
    def mean_SLTC(self) -> np.ndarray:
        """Mean over tokens of h."""
        return self._array("h_mean", "channel")

    @cached_property
    def max_abs_SLTC(self) -> np.ndarray:
        """Max over tokens of abs(h)."""
        return self._array("h_max_abs", "channel")

    @cached_property
    def std_SLTC(self) -> np.ndarray:
        """Population standard deviation over tokens of h."""
        return self._array("h_std", "channel")

    @cached_property
    def median_SLT1(self) -> np.ndarray:
        """Mean |h| of the median channel: the scale of an ordinary channel at this visit.

        Raises
        ------
        AnalysisError
            If the recording is known to hold a part of the channels.
        """
        self.need_all_channels()
        return np.asarray(np.median(self.mean_abs_SLTC, axis=-1, keepdims=True))

    @cached_property
    def ratio_to_median_SLTC(self) -> np.ndarray:
        """Mean |h| of the channel over that of the median channel; 0 where more than half of the channels are 0."""
        return divide(self.mean_abs_SLTC, self.median_SLT1)

    @cached_property
    def ratio_to_mean_SLTC(self) -> np.ndarray:
        """Mean |h| of the channel over the mean of |h| over tokens and channels."""
        self.need_all_channels()
        return divide(self.mean_abs_SLTC, self.mean_abs_SLTC.mean(axis=-1, keepdims=True))

    @cached_property
    def token_share_SLTC(self) -> np.ndarray:
        """Effective share of tokens that carry the channel, (mean |h|)² / mean h², in (0, 1].

        The participation ratio over tokens: 1 for a constant, 2/π for normal values around 0, k/N for k of N tokens
        with equal |h| and the rest 0. Exact from the recorded statistics: mean h² = (mean h)² + std².
        """
        square = self.mean_SLTC.astype(np.float64) ** 2 + self.std_SLTC.astype(np.float64) ** 2
        return divide(self.mean_abs_SLTC.astype(np.float64) ** 2, square)

    @cached_property
    def dominance_SLTC(self) -> np.ndarray:
        """Share of tokens whose largest channel it is; float32 in [0, 1]."""
        require(self.recording, "h_top_channel")
        top = self.recording["h_top_channel"].isel(rank=0).transpose(*_UNIT_DIMS, "token")
        shape = self.mean_abs_SLTC.shape
        n_channels, n_tokens = shape[-1], top.sizes["token"]
        # The dimension `channel` may be a part of the model's channels, in another order: go by label, not
        # by position.
        labels = self.recording["channel"].values if "channel" in self.recording.coords else np.arange(n_channels)
        position = np.full(int(labels.max()) + 2, n_channels)  # channels not in the recording count in a spare column
        position[labels] = np.arange(n_channels)
        share = np.empty(shape, dtype=np.float32)
        for s in range(shape[0]):
            for layer in range(shape[1]):  # unit by unit: all tokens of a large recording do not fit into memory
                top_TN = np.asarray(top.isel(sample=s, layer=layer).values).astype(np.int64)
                known = (top_TN >= 0) & (top_TN < len(position))
                where_TN = position[np.where(known, top_TN, len(position) - 1)]
                offset = np.arange(shape[2])[:, None] * (n_channels + 1)
                counts = np.bincount((where_TN + offset).ravel(), minlength=shape[2] * (n_channels + 1))
                share[s, layer] = counts.reshape(shape[2], -1)[:, :n_channels] / n_tokens
        return share

    @property
    def has_hidden(self) -> bool:
        """Whether the full hidden states were recorded."""
        return "hidden" in self.recording.data_vars

    def hidden_NC(self, sample: int, layer: int, timestep: int) -> np.ndarray:
        """Hidden state of one visit by position, float32."""
        require(self.recording, "hidden")
        visit = self.recording["hidden"].isel(sample=sample, layer=layer, timestep=timestep)
        return decode_hidden(visit.transpose("token", "channel"))

    def coords(self, *dims: str) -> dict[str, Any]:
        """Coordinates of the recording that live on these dimensions, for the labels of a result."""
        return {
            str(name): coord
            for name, coord in self.recording.coords.items()
            if coord.dims and set(coord.dims) <= set(dims)
        }

    def attrs(self, analysis: str) -> dict[str, Any]:
        """Attributes every result carries: which recording, branch and samples it came from."""
        kept = (
            "schema_version",
            "model_name",
            "model",
            "pipeline_class",
            "layout",
            "settings_fingerprint",
            "git_revision",
        )
        source = {f"recording_{key}": self.recording.attrs[key] for key in kept if key in self.recording.attrs}
        # Nested attributes as JSON text: Zarr would take them as they are, netCDF and a table's header would not.
        flat = {k: json.dumps(v, sort_keys=True) if isinstance(v, dict) else v for k, v in source.items()}
        return {
            **flat,
            "analysis": analysis,
            "branch": self.branch,
            "n_samples": self.n,
            "n_prompts": len(set(self.prompts)),
            "n_replicates": self.n_replicates,
            "replicate": self.replicate,
            "replication": self.replication,
            "n_samples_recorded": self.n + len(self.left_out),
            "samples_left_out": self.left_out,
            "version": version(),
        }


def counted(attrs: Mapping[str, Any]) -> str:
    """Say of how many prompts and samples a result is, from its attributes."""
    n = attrs["n_samples"]
    return f"{attrs['replication']} ({n} complete sample{'s' if n != 1 else ''})"


def too_few(attrs: Mapping[str, Any]) -> str:
    """Say which replicates are too few, or nothing if there are enough."""
    n, what = attrs["n_replicates"], attrs["replicate"]
    if n >= inference.MINIMUM_SAMPLES:
        return ""
    return f"{n} {what}{'s' if n != 1 else ''}, of at least {inference.MINIMUM_SAMPLES}"


def _of_model(recording: xr.Dataset, what: str) -> int | None:
    """How many blocks or channels the recorded model has, where the recording says it."""
    layout = recording.attrs.get("layout")
    value = layout.get(what) if isinstance(layout, Mapping) else None
    return int(value) if value is not None else None


def version() -> str:
    """Version of this package, for the attributes of a result."""
    import workbench

    found = getattr(workbench, "__version__", None)
    if found is None:
        from importlib import metadata

        try:
            found = metadata.version("dit-workbench")
        except metadata.PackageNotFoundError:
            found = "unknown"
    return str(found)
