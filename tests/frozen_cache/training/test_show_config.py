"""`train-head --show-config`: every key with its value, as a preset that gives the same configuration."""

from __future__ import annotations

import pytest

from frozen_cache.cli.main import exit_code
from frozen_cache.training.config import all_keys, load_config, preset_names
from frozen_cache.training.show_config import config_text


@pytest.mark.parametrize("preset", preset_names())
def test_what_is_printed_is_a_preset_of_the_same_configuration(preset, tmp_path, capsys):
    options = ["--set", "head.query_layers=3", "--set", "optim.milestones=[0.5]", "--lr", "0.25", "--epochs", "2"]
    assert exit_code(["train-head", "--show-config", "--preset", preset, *options]) == 0
    text = capsys.readouterr().out
    (tmp_path / "mine.toml").write_text(text)
    config = load_config(preset=str(tmp_path / "mine.toml"))
    assert config == load_config(
        preset=preset,
        overrides={
            "head.query_layers": 3,
            "optim.milestones": [0.5],
            "optim.lr": 0.25,
            "optim.epochs": 2,
            "optim.min_steps": 0,
        },
    )
    assert "lr = 0.25" in text and "# default: 0.00015" in text


def test_every_key_stands_there_with_what_it_means():
    text = config_text(load_config(), title="t")
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(line.removeprefix("# ") for line in text.splitlines())
    for key, field in all_keys().items():
        assert field.description and " ".join(field.description.split()) in words, key
        name = key.rpartition(".")[2]
        assert f"\n{name} = " in text or f"\n# {name} is not set" in text


def test_that_of_a_run_is_shown_with_resume(scene_run, capsys):
    assert exit_code(["train-head", "--show-config", "--resume", "--out", str(scene_run)]) == 0
    text = capsys.readouterr().out
    assert "width = 16\n" in text and "points = 16\n" in text


def test_without_it_cache_and_out_are_asked_for(capsys):
    assert exit_code(["train-head", "--preset", "paper"]) == 2
    assert "needs --cache, or --live, and --out" in capsys.readouterr().err
