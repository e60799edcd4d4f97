import json

import torch

from workbench.models.mini.loop import rate, rows_of_step
from workbench.models.mini.massive import peak
from workbench.models.mini.train import PROMPTS, Config


def test_resumed_run_is_bit_identical(tmp_path, make_trainer):
    whole = make_trainer(tmp_path / "whole")
    whole.run()
    first = make_trainer(tmp_path / "killed")
    first.run(stop_at=2)
    first.train_step()  # progress after the last checkpoint is lost in a kill
    again = make_trainer(tmp_path / "killed")
    assert again.step == 2
    again.run()
    for name in ("model", "ema"):
        ours, theirs = getattr(again, name).state_dict(), getattr(whole, name).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert not all(torch.equal(a, b) for a, b in zip(whole.ema.parameters(), whole.model.parameters(), strict=True))


def test_log_holds_loss_and_ratios(tmp_path, make_trainer):
    make_trainer(tmp_path).run()
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    reports = [row["ma"] for row in rows if "ma" in row]
    assert len(reports) == 3
    assert all(peak(report) >= 1 for report in reports)
    assert "step 6/6" in (tmp_path / "STATUS.txt").read_text()


def test_every_epoch_shows_every_picture_once():
    seen = torch.cat([rows_of_step(0, 4, step, 10) for step in range(5)])
    for epoch in (seen[:10], seen[10:]):
        assert sorted(epoch.tolist()) == list(range(10))


def test_rate_warms_up_and_decays():
    config = Config(steps=1000, warmup=10, lr=1.0, decay_share=0.1)
    assert rate(config, 0) == 0.1
    assert rate(config, 500) == 1.0
    assert abs(rate(config, 950) - 0.5) < 1e-9


def test_the_fixed_prompts():
    assert len(PROMPTS) == len(set(PROMPTS)) == 16
    assert {"red apple", "dog face", "blue heart", "pizza"} <= set(PROMPTS)
