"""Is the prompt still in the picture? A judge of the embedded model's pictures, and CLIP where its weights are on disk.

A judge is a folder: `judge.json` (classes, sizes), `judge.safetensors`, `reference.json` (band power of the training
pictures) and `study-prompts.txt`. Nothing is ever downloaded and nothing unpickled. torch is imported when a judge or
CLIP is loaded, not before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workbench.errors import WorkbenchError
from workbench.models.mini import EMBEDDED, JUDGES, WEIGHTS
from workbench.sampling.spectrum import Reference

if TYPE_CHECKING:
    from workbench.models.mini.judge import JudgeConfig, JudgeNet

Array = npt.NDArray[Any]

JUDGE, REFERENCE, PROMPTS = "judge.json", "reference.json", "study-prompts.txt"
PROMPT_BYTES = 2**20
CLIP = "openai/clip-vit-base-patch32"
"""CLIP model that is looked for in the local cache of the hub unless another is named."""

CLIP_SCALE = 100.0
"""CLIP score = 100 · max(cos, 0) as in torchmetrics; Hessel et al. 2021 (EMNLP) write 2.5 · max(cos, 0)."""


class Judge:
    """A classifier of pictures by caption.

    Attributes
    ----------
    captions : tuple of str
        All prompts it can judge.
    folder : Path
        Where it came from; its README.md says how good it is.
    """

    def __init__(self, net: JudgeNet, config: JudgeConfig, folder: Path) -> None:
        self._net, self._config = net, config
        self._class = {name: k for k, group in enumerate(config.classes) for name in group}
        self.captions: tuple[str, ...] = tuple(self._class)
        self.folder = folder

    def knows(self, prompt: str) -> bool:
        """Whether the prompt is one of its captions, word by word."""
        return prompt in self._class

    def unknown(self, prompts: Sequence[str]) -> tuple[str, ...]:
        """Name those of `prompts` that it can't judge, once each; `judge` gives NaN for them."""
        return tuple(dict.fromkeys(prompt for prompt in prompts if prompt not in self._class))

    def log_probability(self, images_SYX3: Array) -> Array:
        """Return ln of the probability of each class, shape (S, classes), float64; captions: `classes`."""
        return np.asarray(self._logits(images_SYX3).double().log_softmax(1).numpy())

    @property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        """Captions by class; pictures that can't be told apart share one."""
        return self._config.classes

    def top(self, images_SYX3: Array) -> list[str]:
        """Return the first caption of the most probable class of each image."""
        return [self.classes[k][0] for k in self._logits(images_SYX3).argmax(1).tolist()]

    def judge(self, images_SYX3: Array, prompts: Sequence[str]) -> tuple[Array, Array]:
        """Judge each image by its prompt.

        Parameters
        ----------
        images_SYX3 : ndarray
            uint8, or float in [0, 1]; another size than the judge's is resized.
        prompts : sequence of str
            One an image.

        Returns
        -------
        semantic : ndarray of shape (S,)
            Log-odds ln p − ln(1 − p) of the prompt's own class (natural logarithm); NaN if the prompt is no class.
        recognised : ndarray of shape (S,)
            1.0 if the prompt's class is the most probable one, else 0.0; NaN likewise.
        """
        import torch

        from workbench.models.mini.judge import log_odds

        if len(prompts) != len(images_SYX3):
            raise ValueError(f"one prompt an image, not {len(prompts)} for {len(images_SYX3)}.")
        semantic, recognised = np.full(len(prompts), np.nan), np.full(len(prompts), np.nan)
        known = [i for i, prompt in enumerate(prompts) if prompt in self._class]
        if known:
            logits = self._logits(np.asarray(images_SYX3)[known])
            own = torch.tensor([self._class[prompts[i]] for i in known])
            semantic[known] = log_odds(logits.double(), own).numpy()
            recognised[known] = (logits.argmax(1) == own).double().numpy()
        return semantic, recognised

    def _logits(self, images_SYX3: Array) -> Any:
        from workbench.models.mini.judge import class_logits, to_pictures

        # One image at a time through the network: a batch never changes a number.
        return class_logits(self._net, to_pictures(images_SYX3, self._config.size), self._config.temperature, batch=1)


def judge_folder(model: str | Path) -> Path | None:
    """Folder of judge, reference and study prompts for `model`; None if there is none.

    `model` is an embedded model's name, the folder of an embedded model, or itself such a folder. An embedded model without a
    judge may have reference and study prompts in its own folder.
    """
    name = str(model)
    if name in JUDGES:
        return JUDGES[name] if JUDGES[name].is_dir() else None
    path = EMBEDDED[name] if name in EMBEDDED else Path(model).expanduser()
    if not path.is_dir():
        return None
    embedded = {folder.resolve(): name for name, folder in EMBEDDED.items()}
    if embedded.get(path.resolve()) in JUDGES:
        return judge_folder(embedded[path.resolve()])
    return path if any((path / file).is_file() for file in (JUDGE, REFERENCE, PROMPTS)) else None


def named_by_store(name: str, model: Mapping[str, Any]) -> str | None:
    """Return the embedded model that a store says it is of, or None.

    A store's word is not the user's: it is never taken for a folder of this machine, and the weights have to be that
    model's.

    Parameters
    ----------
    name : str
        The attribute ``model_name``.
    model : mapping
        Fingerprint of the model.
    """
    return name if name in WEIGHTS and model.get("weight_hash") == WEIGHTS[name] else None


def load_judge(model: str | Path) -> Judge | None:
    """Load the judge of `model` (see `judge_folder`); None if there is none.

    Raises
    ------
    WorkbenchError
        If there is one but it can't be read; sizes are checked before anything is allocated.
    """
    folder = judge_folder(model)
    if folder is None or not (folder / JUDGE).is_file():
        return None
    from workbench.models.mini.judge import load_net

    return Judge(*load_net(folder), folder)


def load_reference(model: str | Path) -> Reference | None:
    """Load the band power of the training pictures of `model` (see `judge_folder`); None if there is none."""
    folder = judge_folder(model)
    return Reference.read(folder / REFERENCE) if folder and (folder / REFERENCE).is_file() else None


def load_clip_reference(model: str | Path) -> dict[str, Any] | None:
    """Load the statistics of the training clips of `model` (`clip_statistics`, in `reference.json`); None if there are none.

    Raises
    ------
    WorkbenchError
        If there are some but they can't be read.
    """
    from workbench.sampling.clip_statistics import read_reference

    folder = judge_folder(model)
    return read_reference(folder / REFERENCE) if folder and (folder / REFERENCE).is_file() else None


def study_prompts(model: str | Path) -> tuple[str, ...]:
    """Return the prompts of studies of `model`: a random choice of captions, spread over the data set's groups.

    Raises
    ------
    WorkbenchError
        If there are none for this model; the message names the models that have some.
    """
    folder = judge_folder(model)
    path = folder / PROMPTS if folder else None
    if path is None or not path.is_file():
        raise WorkbenchError(
            f"there are no study prompts for {str(model)!r}; there are for: {', '.join(sorted(JUDGES))}. "
            "Give prompts of your own."
        )
    if path.stat().st_size > PROMPT_BYTES:
        raise WorkbenchError(f"{path} has more than {PROMPT_BYTES} bytes; a list of prompts is smaller.")
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))


class ClipScore:
    """CLIP score of images and prompts, from weights on this disk."""

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        self._model, self._processor, self.name = model, processor, name

    def score(self, images_SYX3: Array, prompts: Sequence[str]) -> Array:
        """100 · max(cos(image, text), 0) of each image with its prompt (Hessel et al. 2021, EMNLP), shape (S,)."""
        import torch

        images = np.asarray(images_SYX3)
        if not np.issubdtype(images.dtype, np.integer):
            images = np.round(np.clip(images, 0, 1) * 255)
        found = np.empty(len(prompts))
        for s, (image, prompt) in enumerate(zip(images.astype(np.uint8), prompts, strict=True)):
            inputs = self._processor(
                text=[prompt], images=[image], return_tensors="pt", padding=True, truncation=True,
                input_data_format="channels_last",
            )  # fmt: skip
            with torch.no_grad():
                out = self._model(**inputs)
            cosine = torch.nn.functional.cosine_similarity(out.image_embeds, out.text_embeds)
            found[s] = CLIP_SCALE * max(float(cosine[0]), 0.0)
        return found


def load_clip(name: str | Path = CLIP) -> ClipScore | None:
    """Load CLIP from a folder or from the hub's local cache; None if it isn't there. Never downloads."""
    from transformers import CLIPModel, CLIPProcessor

    try:
        model = CLIPModel.from_pretrained(str(name), local_files_only=True, use_safetensors=True)
        processor = CLIPProcessor.from_pretrained(str(name), local_files_only=True)
    except (OSError, ValueError):
        return None
    return ClipScore(model.eval(), processor, str(name))
