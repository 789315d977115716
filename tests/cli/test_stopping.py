"""Ctrl-C in any command: one line that says what is safe and the exact command that follows."""

from __future__ import annotations

import os
import shlex
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
from PIL import Image

from frozen_cache.cli.main import exit_code
from frozen_cache.cli.stopping import stoppable
from frozen_cache.errors import StoppedError
from tests.cli.test_project import coco_folder


def ctrl_c(*arguments: Any, **options: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGINT)
    raise AssertionError("SIGINT was not raised")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the commands look for first."""
    coco_folder(tmp_path)
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").touch()
    (tmp_path / "my run").mkdir()
    (tmp_path / "my run" / "run.json").touch()
    Image.new("RGB", (8, 6)).save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    yield tmp_path
    signal.signal(signal.SIGINT, before)


EXTRACT = "extract-features --detector hf:model --images train2017 --annotations annotations/instances_train2017.json"


@pytest.mark.parametrize(
    ("command", "stage", "kept"),
    [
        (f"{EXTRACT} --out x.zarr", "extract.extract_features", "finished segments are kept; go on"),
        (f"--quiet {EXTRACT} --out x.zarr", "extract.extract_features", "finished segments are kept; go on"),
        ("cache copy a.zarr b.zarr", "cache_copy.cache_copy", "finished segments are kept; go on"),
        (
            "evaluate --cache a.zarr --head 'my run' --out r",
            "evaluate.evaluate",
            "nothing of it is finished; begin again",
        ),
        ("predict --model 'my run' picture.png --out p", "predict.predict", "nothing of it is finished; begin again"),
        ("convert train2017 --out c", "convert.convert", "finished files are kept; go on"),
    ],
)
def test_ctrl_c_says_what_is_kept_and_what_to_type(command, stage, kept, place, monkeypatch, capsys):
    monkeypatch.setattr(f"frozen_cache.stages.{stage}", ctrl_c)
    assert exit_code(shlex.split(command)) == 130
    [said] = capsys.readouterr().err.splitlines()
    again = shlex.join(shlex.split(f"frozen-cache {command}"))
    again += " --overwrite" * command.startswith("predict")
    assert said == f"stopped at once; {kept} with: {again}"


def test_a_stopped_project_does_not_go_on_with_its_next_part(place, monkeypatch, capsys):
    assert exit_code(["init", "."]) == 0
    capsys.readouterr()
    monkeypatch.setattr("frozen_cache.stages.extract.extract_features", ctrl_c)
    assert exit_code(["run", "frozen-cache.toml"]) == 130
    first, last = capsys.readouterr().err.splitlines()
    assert first == "== extract-features"
    assert last == "stopped at once; finished segments are kept; go on with: frozen-cache run frozen-cache.toml"


def test_what_a_library_makes_of_ctrl_c_is_a_stop_too():
    """torchvision's import ended in a RecursionError."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts with `&`

    def importing():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            raise RecursionError("maximum recursion depth exceeded") from None

    def wrong():
        raise ValueError("a mistake")

    try:
        with pytest.raises(StoppedError, match="stopped at once; checkpoints are safe"):
            stoppable("train-head", importing)()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    with pytest.raises(ValueError, match="a mistake"):
        stoppable("train-head", wrong)()
