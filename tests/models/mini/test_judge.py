"""The judge learns, resumes bit by bit, and is read back; damaged or absurd folders are refused by name."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from workbench.errors import WorkbenchError
from workbench.models.mini import judge as j
from workbench.models.mini import judge_augment as a
from workbench.models.mini.judge_measure import calibration, octave_filtered, spread_prompts, verdicts
from workbench.models.mini.judge_train import JudgeTrainer, JudgeTraining, fit_temperature

CAPTIONS = ["disc", "ring", "square", "cross", "stripes", "twin of cross"]


def shapes() -> np.ndarray:
    """Six pictures on white, the last the same as the fourth but for one pixel."""
    y, x = np.mgrid[:64, :64] - 32
    r = np.hypot(y, x)
    masks = [r < 20, (r < 22) & (r > 12), np.maximum(abs(y), abs(x)) < 18, np.minimum(abs(y), abs(x)) < 6,
             (abs(y) < 22) & (abs(x) < 22) & (y // 8 % 2 == 0)]  # fmt: skip
    colours = [(200, 30, 30), (20, 120, 200), (30, 160, 60), (120, 40, 160), (230, 150, 20)]
    pixels = np.full((6, 64, 64, 3), 255, np.uint8)
    for k, (mask, colour) in enumerate(zip(masks, colours, strict=True)):
        pixels[k][mask] = colour
    pixels[5] = pixels[3]
    pixels[5, 0, 0] = 0
    return pixels


SETTINGS = {"batch": 16, "widths": (8, 8, 16, 16), "trips": False, "warmup": 5, "lr": 1e-2, "ema": 0.9}


@pytest.fixture
def config() -> j.JudgeConfig:
    return j.JudgeConfig((("a", "b"), ("c",), ("d",)), widths=(4, 4, 8, 8), temperature=1.5)


@pytest.fixture
def folder(tmp_path, config):
    torch.manual_seed(0)
    j.save_judge(j.JudgeNet(config), config, tmp_path / "judge")
    return tmp_path / "judge"


def test_pictures_that_cannot_be_told_apart_share_a_class() -> None:
    assert j.group_captions(shapes(), CAPTIONS) == [[0], [1], [2], [3, 5], [4]]
    assert j.group_captions(shapes(), CAPTIONS, nearest=0.0) == [[0], [1], [2], [3], [4], [5]]


def test_it_learns_shapes_and_knows_them_disturbed(tmp_path) -> None:
    out = JudgeTrainer(JudgeTraining(steps=120, **SETTINGS), tmp_path, shapes(), CAPTIONS).run()
    net, config = j.load_net(out)
    assert config.classes[3] == ("cross", "twin of cross")
    pictures = j.to_pictures(shapes()[:5], 64)
    for change in (lambda x: x, lambda x: a.blurred(x, 2), lambda x: a.moved(x, 4), lambda x: a.sharpened(x, 2)):
        assert j.class_logits(net, change(pictures)).argmax(1).tolist() == [0, 1, 2, 3, 4]
    rows = [json.loads(line) for line in (tmp_path / "judge" / "train.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 120


def test_a_resumed_run_ends_at_the_same_bits(tmp_path) -> None:
    settings = JudgeTraining(steps=6, **SETTINGS)
    whole = JudgeTrainer(settings, tmp_path / "a", shapes(), CAPTIONS)
    whole.run()
    assert JudgeTrainer(settings, tmp_path / "b", shapes(), CAPTIONS).run(stop_at=3) is None
    resumed = JudgeTrainer(settings, tmp_path / "b", shapes(), CAPTIONS)
    assert resumed.step == 3
    resumed.run()
    for one, two in ((whole.net, resumed.net), (whole.average, resumed.average)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, two.state_dict()[name]), name


def test_a_run_with_other_settings_is_not_continued(tmp_path) -> None:
    JudgeTrainer(JudgeTraining(steps=2, **SETTINGS), tmp_path, shapes(), CAPTIONS).run(stop_at=1)
    with pytest.raises(SystemExit, match="other settings"):
        JudgeTrainer(JudgeTraining(steps=3, **SETTINGS), tmp_path, shapes(), CAPTIONS)


def test_the_low_pass_before_the_network_takes_the_finest_tone_away(config) -> None:
    torch.manual_seed(0)
    net = j.JudgeNet(config).eval()
    checks = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    plain = torch.full((1, 3, 64, 64), 0.5)
    fine = (plain + 0.4 * (checks - 0.5)).contiguous()
    inner = slice(2, -2)  # the border is continued, not mirrored
    halves = [torch.nn.functional.conv2d(x, net.get_buffer("kernel"), stride=2, groups=3) for x in (plain, fine)]
    torch.testing.assert_close(halves[0][..., inner, inner], halves[1][..., inner, inner])


def test_log_odds_are_those_of_the_softmax_and_exact_at_the_ends() -> None:
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    p = logits.softmax(1).gather(1, own[:, None])[:, 0]
    torch.testing.assert_close(j.log_odds(logits, own), torch.log(p / (1 - p)))
    sure = torch.tensor([[90.0, 0.0, 0.0]], dtype=torch.float64)
    assert float(j.log_odds(sure, torch.tensor([0]))) == pytest.approx(90 - np.log(2))


def test_a_judge_is_read_as_it_was_written(folder, config) -> None:
    net, read = j.load_net(folder)
    assert read == config
    torch.manual_seed(0)
    made = j.JudgeNet(config).eval()
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(net(x), made(x), atol=2e-3, rtol=2e-3)  # stored as float16
    assert not net.training


def rewrite(folder, **changes) -> None:
    path = folder / "judge.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": [10**9, 4, 4, 4]}, "widths"),
        ({"widths": [4, 4]}, "widths"),
        ({"size": 10**6}, "size"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"classes": [["a"]]}, "1 classes"),
        ({"classes": [["a"], ["a"]]}, "two classes"),
        ({"classes": 3}, "can't be read"),
        ({"format": 2}, "format 2"),
        ({"classes": [["a"], ["b"], ["c"], ["d"]]}, "does not fit"),
        ({"widths": [4, 4, 8, 12]}, "does not fit"),
    ],
)
def test_absurd_or_foreign_configurations_are_refused(folder, changes, message) -> None:
    rewrite(folder, **changes)
    with pytest.raises(WorkbenchError, match=message):
        j.load_net(folder)


def test_damaged_files_are_refused(folder) -> None:
    weights = folder / "judge.safetensors"
    good = {name: tensor.clone() for name, tensor in load_file(weights).items()}  # not a map of the file
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(WorkbenchError, match="safetensors"):
        j.load_net(folder)
    torch.save(good, weights)  # a pickle under the name of weights is not opened
    with pytest.raises(WorkbenchError, match="safetensors"):
        j.load_net(folder)
    save_file(good | {"head.bias": good["head.bias"] * float("nan")}, weights)
    with pytest.raises(WorkbenchError, match="not finite"):
        j.load_net(folder)
    weights.unlink()
    with pytest.raises(WorkbenchError, match="judge.safetensors"):
        j.load_net(folder)
    (folder / "judge.json").write_text("{")
    with pytest.raises(WorkbenchError, match="judge.json"):
        j.load_net(folder)


def test_disturbances_do_what_their_names_say() -> None:
    pictures = j.to_pictures(shapes(), 64)
    g = torch.Generator().manual_seed(0)
    assert torch.equal(a.blurred(pictures, 0), pictures)
    assert a.blurred(pictures, 2).var() < pictures.var()
    assert torch.equal(a.moved(pictures, 3)[..., 3:, 3:], pictures[..., :-3, :-3])
    assert a.moved(pictures, 3)[..., :3, :].min() == 1
    shuffled = a.tiles_shuffled(pictures, 16, g)
    torch.testing.assert_close(shuffled.sort(-1)[0].sum(), pictures.sum())
    assert not torch.equal(shuffled, pictures)
    torch.testing.assert_close(a.tiles_shuffled(pictures, 64, g), pictures)
    assert (a.jpeg(pictures, [90] * 6) - pictures).abs().mean() < (a.jpeg(pictures, [5] * 6) - pictures).abs().mean()
    assert (a.noisy(pictures * 0 + 0.5, 0.1, g).std() - 0.1).abs() < 0.002
    x = a.augmented(pictures, g, groups=2)
    assert x.shape == pictures.shape
    assert x.min() >= 0
    assert x.max() <= 1


def test_octaves_add_up_to_the_picture() -> None:
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    low, high = octave_filtered(picture, 0, 1 / 8), octave_filtered(picture, 1 / 8, 9)
    torch.testing.assert_close(low + high - picture.mean((2, 3), keepdim=True), picture)


def test_study_prompts_are_spread_by_size_and_never_twice() -> None:
    captions = [f"{group} {i}" for group, n in (("big", 60), ("small", 30), ("tiny", 2)) for i in range(n)]
    chosen = spread_prompts(captions, [c.split()[0] for c in captions], count=12)
    assert len(set(chosen)) == len(chosen) == 12
    counts = [sum(c.startswith(group) for c in chosen) for group in ("big", "small", "tiny")]
    assert counts == [7, 4, 1]
    assert chosen == spread_prompts(captions, [c.split()[0] for c in captions], count=12)
    assert chosen != spread_prompts(captions, [c.split()[0] for c in captions], count=12, seed=1)


def test_temperature_and_calibration_find_what_was_planted() -> None:
    g = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20000, 5, generator=g)
    labels = torch.multinomial(logits.softmax(1), 1, generator=g)[:, 0]
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)
    assert calibration(logits, labels)["ece"] < 0.02
    assert calibration(3 * logits, labels)["ece"] > 0.1
    found = verdicts(logits, logits.argmax(1))
    assert (found["n"], found["recognised"], found["among_five"]) == (20000, 1.0, 1.0)


@pytest.mark.slow
def test_the_command_trains_measures_and_writes_the_card(tiny_run, tmp_path, monkeypatch) -> None:
    from workbench.models.mini import grid, judge_card, judge_measure
    from workbench.models.mini.__main__ import main

    captions = json.loads((tiny_run / "captions.json").read_text())["captions"]
    names = tiny_run / "npm" / "package" / "data-by-emoji.json"
    names.parent.mkdir(parents=True)
    names.write_text(json.dumps({c: {"name": c, "group": "ab"[len(c) % 2]} for c in captions}))
    (tiny_run / "e3d" / "package").mkdir(parents=True)
    monkeypatch.setattr(judge_card, "STUDY", 5)
    monkeypatch.setattr(grid, "SAMPLING_STEPS", 1)
    for name, value in {"OTHER_PROMPTS": 2, "CURVE_PICTURES": 3, "HELD_OUT_BATCHES": 1}.items():
        monkeypatch.setattr(judge_measure, name, value)
    command = ["--work", str(tiny_run), "judge", "--steps", "2", "--batch", "8", "--target", str(tmp_path / "out")]
    main(command)
    card = (tmp_path / "out" / "README.md").read_text()
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert f"{100 * numbers['held_out']['recognised']:.1f} %" in card
    assert numbers["generated"]["plain_others"]["n"] == 2
    (tmp_path / "out" / "README.md").unlink()
    main([*command, "--text-only"])
    assert (tmp_path / "out" / "README.md").read_text() == card
