"""mini-video's scripts on a made-up training set: data, autoencoder, training, export, nearest clips."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline

from workbench.models.mini.video import data, dit, evaluate, nearest
from workbench.models.mini.video.card import finish
from workbench.models.mini.video.export import export
from workbench.models.mini.video.train import PROMPTS, Config, Trainer
from workbench.models.mini.video.vae import decode_unclamped, make_vae, train_vae

CAPTIONS = ["dog face", "fish", "red heart", "face with tears of joy"]


def discs(n: int = len(CAPTIONS)) -> np.ndarray:
    """Clips of one disc each that moves to the right, (n, 17, 54, 54, 4): every clip another colour and height."""
    y, x = np.mgrid[: data.PICTURE, : data.PICTURE]
    rgba = np.zeros((n, data.FRAMES, data.PICTURE, data.PICTURE, 4), np.uint8)
    for i in range(n):
        for f in range(data.FRAMES):
            inside = (y - 12 - 9 * i) ** 2 + (x - 14 - 1.5 * f) ** 2 < 81
            rgba[i, f][inside] = (*np.eye(3, dtype=np.uint8)[i % 3] * 200, 255)
    return rgba


@pytest.fixture
def work(tmp_path):
    """Folder with the made-up clips and an untrained autoencoder."""
    np.save(tmp_path / "clips.npy", discs())
    rows = {"captions": CAPTIONS, "codes": [str(i) for i in range(len(CAPTIONS))]}
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    torch.manual_seed(0)
    make_vae().save_pretrained(tmp_path / "vae")
    return tmp_path


@pytest.fixture
def make_trainer(work, monkeypatch):
    monkeypatch.setattr("workbench.models.mini.video.train.STILLS", 2)
    monkeypatch.setattr("workbench.models.mini.video.train.CLIPS", 1)
    config = Config(
        steps=4, batch=2, still_steps=2, still_batch=4, warmup=2, layers=2, heads=1, ffn=64, ma_every=4, log_every=1
    )
    return lambda: Trainer(config, work, AutoencoderKLWan.from_pretrained(work / "vae"))


def test_a_clip_keeps_its_colours_on_any_background_and_none_of_it_is_cut_off():
    rgba = discs()[0]
    seen = data.on_background(rgba, np.random.default_rng(0))
    assert seen.shape == (3, 17, 64, 64)
    assert seen.min() >= -1
    assert seen.max() <= 1
    red = np.isclose(seen[0], 200 / 127.5 - 1, atol=1e-5) & (seen[1] == -1) & (seen[2] == -1)
    assert [int(r.sum()) for r in red] == [int((f[..., 3] == 255).sum()) for f in rgba]
    corners = {tuple(data.on_background(rgba, np.random.default_rng(i))[:, 0, 0, 0].round(4)) for i in range(8)}
    assert len(corners) == 8


def test_the_liveliest_part_of_a_loop_is_taken():
    frames = np.zeros((72, 4, 4, 4), np.uint8)
    frames[..., 3] = 255
    frames[50:60:2, ..., 0] = 255  # flickers late in the loop
    clip = data.liveliest(frames)
    assert clip.shape == (17, 4, 4, 4)
    assert clip[..., 0].any()
    assert data.motion(clip).mean() > 0


@pytest.mark.parametrize(
    ("stem", "caption", "kept"),
    [
        ("1f436", "dog face", True),
        ("1f44b-1f3fd", "waving hand", False),
        ("1f9d1-200d-1f4bb", "technologist", False),
        ("1f55b", "twelve o'clock", False),
        ("1f9d1", "person", False),
    ],
)
def test_which_clips_are_wanted(stem, caption, kept):
    assert data.wanted(stem, caption) is kept


def test_counted_padding_equals_padding_written_out():
    torch.manual_seed(0)
    tokenizer = dit.make_tokenizer(CAPTIONS)
    model = dit.MiniVideo(tokenizer, layers=2, heads=1, ffn=64).eval()
    for weight in model.transformer.parameters():  # blocks start as the identity: give everything something to do
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    ids = dit.token_ids(tokenizer, CAPTIONS)
    pipe = dit.make_pipeline(model, tokenizer, make_vae())
    latents, time = torch.randn(4, 16, 2, 4, 4), torch.tensor([900.0, 500.0, 100.0, 10.0])
    with torch.no_grad():
        written = {n: pipe.encode_prompt(CAPTIONS, None, False, max_sequence_length=n)[0] for n in (16, 226)}
        stock = {n: model.transformer(latents, time, text, return_dict=False)[0] for n, text in written.items()}
        attention = dit.prepare_for_training(model.transformer)
        text = written[16][:, : dit.WORDS]
        for n, expected in stock.items():
            attention.bias = dit.padding_bias(ids, torch.full((4,), n), tokenizer.pad_token_id)
            ours = model.transformer(latents, time, text, return_dict=False)[0]
            torch.testing.assert_close(ours, expected, atol=2e-3, rtol=0)  # the exact GELU, see prepare_for_training
    assert (stock[16] - stock[226]).abs().max() > 1e-2  # the padding counts


def test_a_resumed_run_is_bit_identical_over_the_change_from_frames_to_clips(work, make_trainer):
    whole = make_trainer()
    whole.run()
    rows = [json.loads(line) for line in (work / "train.jsonl").read_text().splitlines()]
    assert [row["clips"] for row in rows if "clips" in row] == [4, 8, 10, 12]
    (work / "checkpoint.pt").unlink()
    make_trainer().run(stop_at=1)
    again = make_trainer()
    assert again.step == 1
    again.run()
    for name in ("model", "ema"):
        ours, theirs = getattr(again, name).state_dict(), getattr(whole, name).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_an_exported_run_loads_as_a_stock_wan_pipeline(work, make_trainer, tmp_path, monkeypatch):
    make_trainer().run(stop_at=2)
    folder = tmp_path / "out" / "mini-video"
    folder.parent.mkdir()
    export(work, folder)
    export(work, folder)  # replaces the first
    assert [p.name for p in folder.parent.iterdir()] == ["mini-video"]
    assert not list(folder.rglob("*.bin"))
    assert "fluentui-emoji-animated" in (folder / "LICENSE-fluentui-emoji-animated").read_text()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pipe = WanPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    clip = pipe("dog face", height=64, width=64, num_frames=17, num_inference_steps=1, output_type="np").frames
    assert clip.shape == (1, 17, 64, 64, 3)
    assert np.isfinite(clip).all()


@pytest.mark.slow
def test_the_card_of_a_tiny_run(work, make_trainer, tmp_path, monkeypatch):
    make_trainer().run()
    (work / "vae.jsonl").write_text('{"step": 50, "s": 7.0}\n')
    folder = export(work, tmp_path / "mini-video")
    monkeypatch.setattr(evaluate, "PROMPTS", CAPTIONS[:2])
    monkeypatch.setattr(evaluate, "UNSEEN", ["blue fish"])
    monkeypatch.setattr("workbench.models.mini.video.grid.SAMPLING_STEPS", 1)
    numbers, shots = evaluate.evaluate(folder, work, sample=1)
    ma = numbers["massive_activations"]
    for table in (ma["trained"], ma["random"]["same_initialisation"]):
        assert [len(row["ratio"]) for row in table.values()] == [2, 2, 2], "as many blocks as the model"
    assert numbers["parameters"].keys() == {"transformer", "vae", "text_encoder"}
    finish(folder, numbers, shots, {"by": "a test", "prompts": {"fish": True}})
    card = (folder / "README.md").read_text()
    assert "**1 of 2 recognisable at a glance**" in card
    for name in ("grid.webp", "clips.webp", "sample.webp", "unseen.webp", "loss.png", "ma-blocks.png", "ma-growth.png"):
        assert (folder / name).stat().st_size > 0
        assert f"({name})" in card or f"`{name}`" in card


def test_the_autoencoder_trains_and_keeps_its_encoder_when_sharpened(tmp_path):
    clips = data.Clips(discs(), CAPTIONS, ["0", "1", "2", "3"])
    train_vae(clips, tmp_path, 1, batch=2, max_steps=2)
    before = AutoencoderKLWan.from_pretrained(tmp_path / "vae")
    train_vae(clips, tmp_path, 1, batch=2, max_steps=2, start_from=tmp_path / "vae", decoder_only=True)
    after = AutoencoderKLWan.from_pretrained(tmp_path / "vae")
    assert before.config.latents_std == after.config.latents_std != [1.0] * 16
    assert all(torch.equal(a, b) for a, b in zip(before.encoder.parameters(), after.encoder.parameters(), strict=True))
    untouched = zip(before.decoder.parameters(), after.decoder.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in untouched)


def test_decoding_without_the_clamp_is_decoding():
    torch.manual_seed(0)
    vae, z = make_vae().eval(), torch.randn(1, 16, 3, 4, 4)
    with torch.no_grad():
        ours = decode_unclamped(vae, z)
        assert torch.equal(ours.clamp(-1, 1), vae.decode(z).sample)
    assert ours.shape == (1, 3, 9, 16, 16)


def test_the_nearest_clip_is_found_on_any_background_at_any_place():
    clips = data.Clips(discs(), CAPTIONS, ["0", "1", "2", "3"])
    shown = [data.on_background(rgba, np.random.default_rng(i)) for i, rgba in enumerate(clips.rgba)]
    videos = ((np.stack(shown).transpose(0, 2, 3, 4, 1) + 1) * 127.5).round().astype(np.uint8)
    assert nearest.recall(videos, CAPTIONS, clips)["top1"] == 4
    assert nearest.recall(videos, CAPTIONS[::-1], clips)["top1"] == 0


def test_the_fixed_prompts():
    assert len(PROMPTS) == len(set(PROMPTS)) == 12
