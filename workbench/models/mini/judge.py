"""The judge of ``mini-image``: a small convolutional classifier that says which caption a picture shows.

It is there to measure *content* apart from *detail*: a fixed low-pass filter halves the picture first, so the top octave
of spatial frequencies hardly reaches it, and it is trained on moved, blurred, sharpened, noisy and recoloured pictures.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from workbench.errors import WorkbenchError

CONFIG, WEIGHTS = "judge.json", "judge.safetensors"
CONFIG_BYTES, WEIGHT_BYTES = 4 * 2**20, 64 * 2**20
MOST_CLASSES, MOST_WIDTH = 100_000, 4096
FORMAT = 1
SAME_PICTURE = 0.02
"""Pictures nearer than this (root mean square over pixels and colours, of a range of 1) are one class."""


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """What a judge is made of.

    Attributes
    ----------
    classes : tuple of tuple of str
        Captions by class; most classes have one, pictures that can't be told apart share one.
    size : int
        Side in pixels of the pictures it reads; others are resized to it.
    widths : tuple of four int
        Channels of the stages at 1/2, 1/4, 1/8 and 1/16 of the size.
    temperature : float
        Logits are divided by it; fitted on held-out augmentations.
    """

    classes: tuple[tuple[str, ...], ...]
    size: int = 64
    widths: tuple[int, ...] = (24, 64, 128, 160)
    temperature: float = 1.0

    def check(self, where: object) -> None:
        """Refuse what would need absurd memory or makes no sense, before anything is allocated."""
        wrong = (
            f"{len(self.classes)} classes" if not 2 <= len(self.classes) <= MOST_CLASSES
            else f"widths {self.widths}" if len(self.widths) != 4 or not all(0 < w <= MOST_WIDTH for w in self.widths)
            else f"size {self.size}" if not (16 <= self.size <= 1024 and self.size % 16 == 0)
            else f"temperature {self.temperature}" if not 0.01 <= self.temperature <= 100
            else "a caption in two classes" if len({c for g in self.classes for c in g}) != sum(map(len, self.classes))
            else ""
        )  # fmt: skip
        if wrong:
            raise WorkbenchError(
                f"The judge in {where} is not usable: {wrong}. Valid: 2 to {MOST_CLASSES} classes, four widths up to "
                f"{MOST_WIDTH}, a size that 16 divides up to 1024, a temperature of 0.01 to 100, each caption once."
            )


def _conv(inside: int, outside: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.body = nn.Sequential(_conv(width, width, 1), last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.body(x))


class JudgeNet(nn.Module):
    """Pictures (S, 3, Y, X) in [0, 1] to logits (S, classes)."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        a, b, c, d = config.widths
        self.features = nn.Sequential(
            _conv(3, a, 1), _conv(a, b, 2), _Residual(b), _conv(b, c, 2), _Residual(c), _conv(c, d, 2)
        )
        self.head = nn.Linear(d, len(config.classes))
        binomial = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(binomial, binomial).expand(3, 1, 4, 4).clone(), persistent=False)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Halve with a fixed binomial filter (|cos πf|³: 0.35 of the amplitude at 1/4, none at 1/2 cycles a pixel)."""
        white_is_zero = F.pad(1 - pictures, (1, 1, 1, 1), mode="replicate")
        half = F.conv2d(white_is_zero, self.get_buffer("kernel"), stride=2, groups=3)
        return self.head(self.features(half).mean((2, 3)))


def to_pictures(images_SYX3: np.ndarray, size: int) -> torch.Tensor:
    """Return uint8 images, or floats in [0, 1], as float32 tensors (S, 3, size, size) in [0, 1]."""
    images = np.asarray(images_SYX3)
    scale = 255.0 if np.issubdtype(images.dtype, np.integer) else 1.0
    pictures = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(scale).clamp(0, 1)
    if pictures.shape[-2:] != (size, size):
        pictures = F.interpolate(pictures, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return pictures


@torch.no_grad()
def class_logits(net: JudgeNet, pictures: torch.Tensor, temperature: float = 1.0, batch: int = 64) -> torch.Tensor:
    """Logits (S, classes) of pictures (S, 3, Y, X), in float32, `batch` at a time."""
    return torch.cat([net(part) for part in pictures.split(batch)]) / temperature


def log_odds(logits: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Log-odds ln p − ln(1 − p) of class own_S: its logit less the logsumexp of all others; exact where p rounds to 1."""
    others = logits.scatter(1, own[:, None], float("-inf"))
    return logits.gather(1, own[:, None])[:, 0] - others.logsumexp(1)


def group_captions(pixels: np.ndarray, captions: Sequence[str], nearest: float = SAME_PICTURE) -> list[list[int]]:
    """Indices by class: one class a caption, but pictures nearer than `nearest` share one."""
    flat = torch.from_numpy(pixels.reshape(len(pixels), -1)).double() / 255
    square = (flat**2).sum(1)
    away_NN = ((square[:, None] + square - 2 * flat @ flat.T).clamp_min(0) / flat.shape[1]).sqrt()
    groups: list[list[int]] = []
    found: dict[int, int] = {}
    for i in range(len(captions)):
        same = torch.nonzero(away_NN[i, :i] < nearest).flatten().tolist()
        found[i] = found[same[0]] if same else len(groups)
        if same:
            groups[found[i]].append(i)
        else:
            groups.append([i])
    return groups


def save_judge(net: JudgeNet, config: JudgeConfig, folder: Path) -> None:
    """Write `judge.json` and `judge.safetensors` (float16) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    table = {"format": FORMAT, **dataclasses.asdict(config)}
    classes = ",\n".join("  " + json.dumps(list(group)) for group in table.pop("classes"))
    head = json.dumps(table, indent=1)[:-2]
    (folder / CONFIG).write_text(head + ',\n "classes": [\n' + classes + "\n ]\n}\n", encoding="utf-8")
    state = {k: v.half().contiguous() for k, v in net.state_dict().items() if v.is_floating_point()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def read_config(folder: Path) -> JudgeConfig:
    """Read and check `judge.json`.

    Raises
    ------
    WorkbenchError
        If it is missing, too large, malformed, or asks for absurd sizes.
    """
    path = folder / CONFIG
    try:
        if path.stat().st_size > CONFIG_BYTES:
            raise WorkbenchError(f"{path} has more than {CONFIG_BYTES} bytes; the configuration of a judge is smaller.")
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["format"] != FORMAT:
            raise WorkbenchError(f"{path} has format {table['format']!r}; this version reads {FORMAT}.")
        classes = tuple(tuple(str(name) for name in group) for group in table["classes"])
        widths = tuple(int(width) for width in table["widths"])
        config = JudgeConfig(classes, int(table["size"]), widths, float(table["temperature"]))
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise WorkbenchError(f"{path} can't be read as the configuration of a judge: {error!r}.") from error
    config.check(path)
    return config


def load_net(folder: Path) -> tuple[JudgeNet, JudgeConfig]:
    """Load what `save_judge` wrote; shapes are compared in the file's header before a tensor is read.

    Raises
    ------
    WorkbenchError
        If a file is missing, too large or malformed, or the weights are those of another configuration.
    """
    config = read_config(folder)
    path = folder / WEIGHTS
    with torch.device("meta"):
        wanted = {k: tuple(v.shape) for k, v in JudgeNet(config).state_dict().items() if v.is_floating_point()}
    try:
        if path.stat().st_size > WEIGHT_BYTES:
            raise WorkbenchError(f"{path} has more than {WEIGHT_BYTES} bytes; the weights of a judge are smaller.")
        with safe_open(path, framework="pt") as file:
            there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        if there != wanted:
            odd = sorted(name for name in there.keys() | wanted if there.get(name) != wanted.get(name))
            raise WorkbenchError(
                f"{path} does not fit {CONFIG}: {odd[0]} is {there.get(odd[0])}, not {wanted.get(odd[0])}."
            )
        state = {name: tensor.float() for name, tensor in load_file(path).items()}
    except WorkbenchError:
        raise
    except Exception as error:  # safetensors has its own error, and none of its bases is narrower
        raise WorkbenchError(f"{path} can't be read as safetensors: {error}.") from error
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise WorkbenchError(f"{path} holds values that are not finite. Install the package anew, or train it again.")
    net = JudgeNet(config)
    net.load_state_dict(state, strict=False)  # only BatchNorm's counters are not in the file
    return net.eval(), config
