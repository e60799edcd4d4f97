import json

import numpy as np

from workbench.models.mini.card import finish
from workbench.models.mini.evaluate import evaluate, rank_of
from workbench.models.mini.export import export
from workbench.models.mini.grid import tile
from workbench.models.mini.measured import training_log


def test_rank_finds_the_shifted_original():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    assert rank_of(np.roll(pixels[3], (2, 0), (0, 1)), 3, pixels) == 1
    assert rank_of(pixels[3], 4, pixels) > 1


def test_tile_places_pictures_row_by_row():
    pictures = np.stack([np.full((4, 4, 3), i, np.uint8) for i in range(3)])
    sheet = tile(pictures, columns=2, gap=1)
    assert sheet.shape == (10, 10, 3)
    assert [sheet[0, 0, 0], sheet[0, 5, 0], sheet[5, 0, 0], sheet[5, 5, 0]] == [0, 1, 2, 224]


def test_repeated_steps_of_a_resumed_log_count_once(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"step": 1, "loss": 2.0}\n')
    (tmp_path / "vae.jsonl").write_text('{"step": 50, "s": 7.0}\n')
    log = training_log(tmp_path)
    assert log == {"loss": [[1, 2.0]], "ma_growth": [], "decoder": None, "vae_steps": 50, "vae_seconds": 7.0}


def test_time_of_an_autoencoder_that_goes_on_is_that_of_all_its_legs(tmp_path):
    (tmp_path / "train.jsonl").write_text("")
    legs = [(50, 7.0), (100, 15.0), (50, 8.0)]
    (tmp_path / "vae.jsonl").write_text("".join(json.dumps({"step": n, "s": s}) + "\n" for n, s in legs))
    seen = {goes_on: training_log(tmp_path, vae_goes_on=goes_on) for goes_on in (False, True)}
    assert [(log["vae_steps"], log["vae_seconds"]) for log in seen.values()] == [(50, 8.0), (150, 23.0)]


def test_card_of_a_tiny_run(tiny_run, tmp_path, monkeypatch):
    from workbench.models.mini import evaluate as module

    few = ["red apple", "dog face", "blue heart", "pizza"]
    monkeypatch.setattr(module, "PROMPTS", few)
    monkeypatch.setattr("workbench.models.mini.grid.SAMPLING_STEPS", 2)
    (tiny_run / "vae.jsonl").write_text('{"step": 50, "s": 7.0}\n')
    folder = export(tiny_run, tmp_path / "mini")
    numbers, shots = evaluate(folder, tiny_run, sample=2)
    twins = numbers["massive_activations"]["random"]
    assert {len(row["ratio"]) for twin in twins.values() for row in twin.values()} == {2}, "as many blocks as the model"
    verdict = {"by": "a test", "prompts": {"pizza": True}}
    finish(folder, numbers, shots, verdict)
    card = (folder / "README.md").read_text()
    assert "**1 of 4 recognisable at a glance**" in card
    for name in ("grid.webp", "sample.webp", "unseen.webp", "loss.png", "ma-blocks.png", "ma-growth.png"):
        assert (folder / name).stat().st_size > 0
        assert f"({name})" in card
    assert (folder / "stock.webp").exists()
