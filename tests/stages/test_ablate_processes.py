"""An ablation by several processes: they train together, and one of them holds the folder and writes the table."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

GRID = """
title = "two"
base = {"head.width" = 16, "head.roi_size" = 16, "head.image_layers" = 0, "head.box_layers" = 1, "loss.points" = 16}
[[rows]]
name = "a"
[[rows]]
name = "b"
set = {seed = 1}
"""


def test_two_processes_train_each_variant_together_and_one_writes(scene_cache, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "grid.toml").write_text(GRID)
    options = ["--cache", scene_cache, "--val-cache", scene_cache, "--grid", tmp_path / "grid.toml", "--out", out]
    command = ["ablate", *options, "--epochs", "1", "--set", "optim.batch_size=2", "--device", "cpu"]
    first, second = together([sys.executable, "-m", "frozen_cache", *map(str, command)])
    for name in ("00-a", "01-b"):
        run = out / "variants" / name / "run"
        [start] = [json.loads(line) for line in (run / "starts.jsonl").read_text().splitlines()]
        assert start["processes"] == 2
        assert (run.parent / "results" / "metrics.json").is_file()
    assert (out / "table.md").read_text().count("\n| ") == 3  # the head and two variants
    assert f"table.csv, table.md and plot.png in {out}, the report in {out / 'report.html'}" in first[0]
    assert second[0] == ""
    assert f"process 1 of 2 is done; process 0 evaluates the last variant and writes {out}" in second[1]
    assert "[2/2] b" in first[1] and "[2/2] b" not in second[1]
    assert not (out / ".owner").exists()


def together(command: list[str]) -> list[tuple[str, str]]:
    """stdout and stderr of two processes that succeed, launched as torchrun does it, which would take longer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            command,
            env=os.environ | rendezvous | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    said = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    return said
