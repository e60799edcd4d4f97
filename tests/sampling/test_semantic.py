"""The judge that is shipped, what it says of mini-image's own pictures, and CLIP from a folder on disk."""

import json

import numpy as np
import pytest
import torch

from workbench.errors import WorkbenchError
from workbench.models import fingerprint, load_pipeline
from workbench.models.mini import EMBEDDED, JUDGES, WEIGHTS
from workbench.models.mini.grid import draw_prompts
from workbench.models.mini.judge import JudgeConfig, JudgeNet, save_judge, to_pictures
from workbench.models.mini.judge_augment import tiles_shuffled
from workbench.sampling import measures as m
from workbench.sampling import semantic


@pytest.fixture(scope="module")
def judge() -> semantic.Judge:
    found = semantic.load_judge("mini-image")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def drawn() -> tuple[list[str], np.ndarray]:
    """Five study prompts, drawn by mini-image with guidance in few steps."""
    from workbench.models.load import load_pipeline

    prompts = list(semantic.study_prompts("mini-image")[::13])
    return prompts, draw_prompts(load_pipeline("mini-image"), prompts, num_inference_steps=8)


@pytest.mark.model
def test_it_recognises_what_the_model_draws_and_not_by_another_prompt(judge, drawn) -> None:
    prompts, images = drawn
    odds, recognised = judge.judge(images, prompts)
    assert recognised.mean() > 0.8
    assert np.median(odds) > 2
    wrong_odds, wrong = judge.judge(images, prompts[1:] + prompts[:1])
    assert wrong.max() == 0
    assert wrong_odds.max() < odds.min()
    named = [prompt == name for prompt, name in zip(prompts, judge.top(images), strict=True)]
    assert named == (recognised == 1).tolist()


@pytest.mark.model
def test_blur_keeps_the_content_and_shuffled_tiles_lose_it(judge, drawn) -> None:
    prompts, images = drawn
    blurred = np.stack([m.blur(image / 255, 1.0) for image in images])
    assert judge.judge(blurred, prompts)[1].mean() > 0.8
    shuffled = tiles_shuffled(to_pictures(images, 64), 8, torch.Generator().manual_seed(0))
    assert judge.judge(shuffled.permute(0, 2, 3, 1).numpy(), prompts)[1].mean() < 0.2


@pytest.mark.model
def test_a_batch_changes_no_number_and_other_sizes_are_resized(judge, drawn) -> None:
    prompts, images = drawn
    together = judge.judge(images, prompts)
    alone = [judge.judge(image[None], [prompt]) for image, prompt in zip(images, prompts, strict=True)]
    assert together[0].tolist() == [float(odds[0]) for odds, _ in alone]
    doubled = images.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(judge.judge(doubled, prompts)[1], together[1])
    as_floats = judge.judge(images / 255, prompts)[0]
    np.testing.assert_allclose(as_floats, together[0], atol=1e-3)


@pytest.mark.model
def test_image_measures_with_everything(judge, drawn) -> None:
    prompts, images = drawn
    reference = semantic.load_reference("mini-image")
    found = m.image_measures(images, prompts, plain_SYX3=images, judge=judge, reference=reference)
    assert not any(np.isnan(values).any() for values in found.values())
    assert found["low_pass_similarity"].tolist() == pytest.approx([1.0] * len(prompts))
    assert np.median(found["own_spectral_distance"]) < np.median(
        m.image_measures(images, prompts[1:] + prompts[:1], reference=reference)["own_spectral_distance"]
    )


def test_a_prompt_that_is_no_class_is_nan_and_named(judge) -> None:
    image = np.full((3, 64, 64, 3), 255, np.uint8)
    odds, recognised = judge.judge(image, ["no such emoji", "mango", "no such emoji"])
    assert np.isnan(odds).tolist() == np.isnan(recognised).tolist() == [True, False, True]
    assert judge.unknown(["no such emoji", "mango", "no such emoji"]) == ("no such emoji",)
    assert judge.knows("mango")
    with pytest.raises(ValueError, match="one prompt an image"):
        judge.judge(image, ["mango"])


def test_probabilities_add_up_and_give_the_log_odds(judge) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    log_p = judge.log_probability(image)
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1)
    own = [next(k for k, group in enumerate(judge.classes) if "mango" in group)] * 2
    p = np.exp(log_p[[0, 1], own])
    np.testing.assert_allclose(judge.judge(image, ["mango", "mango"])[0], np.log(p / (1 - p)), rtol=1e-6)


def test_the_folder_is_small_and_covers_every_caption(judge) -> None:
    folder = JUDGES["mini-image"]
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 2 * 2**20
    assert {file.suffix for file in folder.iterdir()} <= {".json", ".safetensors", ".md", ".txt", ""}
    reference = semantic.load_reference("mini-image")
    assert reference is not None
    assert set(reference.by_caption) == set(judge.captions)
    bands = np.stack(list(reference.by_caption.values()))
    np.testing.assert_allclose(bands.mean(0), reference.mean, atol=1e-3)
    np.testing.assert_allclose(bands.std(0, ddof=1), reference.spread, atol=1e-3)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["classes"] == len(judge.classes)


def test_study_prompts_are_64_captions_once_each(judge) -> None:
    prompts = semantic.study_prompts("mini-image")
    assert len(prompts) == len(set(prompts)) == 64
    assert judge.unknown(prompts) == ()


def test_a_model_without_judge_has_none(tmp_path) -> None:
    for model in ("no-such-model", "owner/name", tmp_path, tmp_path / "nowhere"):
        assert semantic.load_judge(model) is None
        assert semantic.load_reference(model) is None
        with pytest.raises(WorkbenchError, match="there are for: mini-image"):
            semantic.study_prompts(model)


def test_judges_load_from_a_folder_and_by_the_models_folder(tmp_path) -> None:
    config = JudgeConfig((("a",), ("b",)), widths=(4, 4, 4, 4))
    save_judge(JudgeNet(config), config, tmp_path)
    found = semantic.load_judge(tmp_path)
    assert found is not None
    assert found.captions == ("a", "b")
    by_folder = semantic.load_judge(EMBEDDED["mini-image"])
    assert by_folder is not None
    assert by_folder.folder == JUDGES["mini-image"]
    (tmp_path / "study-prompts.txt").write_text("# a comment\na\n\nb\n")
    assert semantic.study_prompts(tmp_path) == ("a", "b")


@pytest.fixture
def clip_folder(tmp_path):
    """A real CLIP of random weights, small, on disk."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = small | {"vocab_size": len(words), "max_position_embeddings": 16, "eos_token_id": len(words) - 1,
                    "bos_token_id": len(words) - 2, "pad_token_id": len(words) - 1}  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=small | {"image_size": 32, "patch_size": 8}, projection_dim=16)
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def test_clip_score_is_the_cosine_of_its_embeddings(clip_folder) -> None:
    clip = semantic.load_clip(clip_folder)
    assert clip is not None
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    scores = clip.score(images, ["a dog", "cat"])
    assert ((scores >= 0) & (scores <= 100)).all()
    np.testing.assert_allclose(clip.score(images[1:], ["cat"]), scores[1:], rtol=1e-5)
    np.testing.assert_allclose(clip.score(images / 255, ["a dog", "cat"]), scores, rtol=1e-5)
    inputs = clip._processor(text=["cat"], images=[images[1]], return_tensors="pt", input_data_format="channels_last")
    with torch.no_grad():
        out = clip._model(**inputs)
    cosine = float((out.image_embeds * out.text_embeds).sum() / out.image_embeds.norm() / out.text_embeds.norm())
    assert scores[1] == pytest.approx(100 * max(cosine, 0), rel=1e-4)
    assert "clip_score" in m.image_measures(images, ["a dog", "cat"], clip=clip)


def test_clip_without_weights_on_disk_is_none_and_asks_no_network(tmp_path, monkeypatch) -> None:
    import socket

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert semantic.load_clip(tmp_path) is None
    assert semantic.load_clip("nobody/no-such-clip") is None


def test_a_stores_word_is_an_embedded_model_with_its_weights_or_nothing(tmp_path, monkeypatch) -> None:
    model = {"weight_hash": WEIGHTS["mini-image"]}
    assert semantic.named_by_store("mini-image", model) == "mini-image"
    assert semantic.named_by_store("mini-image", {"weight_hash": "0123"}) is None
    assert semantic.named_by_store("mini-image", {}) is None
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "judge.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert semantic.judge_folder("theirs") is not None, "the user may name a folder"
    for name in ("theirs", str(tmp_path / "theirs"), ""):
        assert semantic.named_by_store(name, model) is None


def test_weights_of_the_embedded_models_are_known() -> None:
    installed = {name for name, folder in EMBEDDED.items() if folder.is_dir()}
    assert set(WEIGHTS) == installed
    assert set(JUDGES) == set(EMBEDDED)
    for name, weights in WEIGHTS.items():
        assert fingerprint(load_pipeline(name))["weight_hash"] == weights
