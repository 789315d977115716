"""Every command that writes into a folder of its own tells a second process who is there, and leaves it alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from frozen_cache.cli.main import exit_code
from frozen_cache.ownership import Ownership


@pytest.fixture
def commands(scenes: Path, scene_cache: Path, scene_run: Path, tmp_path: Path) -> dict[str, list[str]]:
    """The options of each command, save for --out."""
    cache, val, head = ["--cache", str(scene_cache)], ["--val-cache", str(scene_cache)], ["--head", str(scene_run)]
    return {
        "train-head": [*cache, *val, "--set", "head.width=16"],
        "evaluate": [*cache, *head],
        "evaluate --test-dev": ["mine", *cache, *head],
        "predict": [str(scenes / "images"), "--model", str(scene_run)],
        "visualize": [*cache, *head],
        "ablate": [*cache, *val, "--grid", "table6"],
        "demo": [],
        "export": ["--run", str(scene_run)],
        "export --format onnx": ["--run", str(scene_run)],
        "convert": [str(scenes)],
    }


@pytest.mark.parametrize(
    "command",
    [
        "train-head",
        "evaluate",
        "evaluate --test-dev",
        "predict",
        "visualize",
        "ablate",
        "demo",
        "export",
        "export --format onnx",
        "convert",
    ],
)
def test_a_second_process_is_told_who_is_there(commands, tmp_path, capsys, command):
    out = tmp_path / "out"
    with Ownership(out):
        before = (out / ".owner").read_bytes()
        assert exit_code([*command.split(), *commands[command], "--out", str(out)]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith(f"error: --out {out} is in use by process {os.getpid()} on {socket.gethostname()}")
        assert [path.name for path in out.iterdir()] == [".owner"] and (out / ".owner").read_bytes() == before
    assert not out.exists()


@pytest.mark.parametrize(
    "command", ["evaluate", "predict", "visualize", "ablate", "demo", "export", "export --format onnx", "convert"]
)
def test_a_file_at_out_is_named_and_left_alone(commands, tmp_path, capsys, command):
    (tmp_path / "out").write_text("words")
    assert exit_code([*command.split(), *commands[command], "--out", str(tmp_path / "out")]) == 2
    assert "exists and is a file" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "words"


@pytest.mark.parametrize(
    "command", ["evaluate", "predict", "visualize", "ablate", "demo", "export", "export --format onnx"]
)
def test_a_folder_of_other_things_is_left_as_it_was(commands, tmp_path, capsys, command):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("words")
    assert exit_code([*command.split(), *commands[command], "--out", str(tmp_path / "out")]) == 2
    assert f"--out {tmp_path / 'out'} exists" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_command_that_ends_lets_its_folder_go(commands, tmp_path):
    for _ in range(2):
        assert exit_code(["evaluate", *commands["evaluate"], "--out", str(tmp_path / "out")]) == 0
        assert not (tmp_path / "out" / ".owner").exists()
