"""How commands end: exit codes and one-line errors, through the real entry point."""

from __future__ import annotations

import pytest

from frozen_cache.cli.main import exit_code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train-head", "--cache", "nowhere.zarr", "--out", "run"], "nowhere.zarr"),
        (["train-head", "--cache", "nowhere.zarr", "--out", "run", "--set", "optim.lr"], "key=value"),
        (["evaluate", "--cache", "nowhere.zarr", "--out", "results"], "--head"),
        (["evaluate", "--cache", "nowhere.zarr", "--out", "results", "--baseline", "box"], "nowhere.zarr"),
        (["evaluate", "--cache", "nowhere.zarr", "--out", "results", "--baseline", "bok"], "no baseline"),
        (["cache", "info", "nowhere.zarr"], "nowhere.zarr"),
        (["cache", "verify", "nowhere.zarr"], "nowhere.zarr"),
        (["ablate", "--cache", "a.zarr", "--val-cache", "b.zarr", "--grid", "table99", "--out", "o"], "no grid"),
        (
            [
                "extract-features",
                "--detector",
                "hdtr-r50",
                "--images",
                ".",
                "--annotations",
                "a.json",
                "--out",
                "o.zarr",
            ],
            "a.json",
        ),
        (["head", "describe", "--preset", "papr"], "papr"),
        (["head", "describe", "--set", "head.widht=3"], "widht"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_writes_nothing(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert exit_code(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert said in error
    assert "\n" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["no-such-command"], ["evaluate"], ["train-head", "--epochz", "3"]])
def test_a_mistyped_command_line_exits_with_2(arguments, capsys):
    assert exit_code(arguments) == 2
    assert capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path, monkeypatch):
    from frozen_cache.errors import UserError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        exit_code(["cache", "info", "nowhere.zarr"], debug=True)


@pytest.mark.parametrize(
    "command", ["demo", "extract-features", "train-head", "evaluate", "ablate", "detectors", "cache", "head"]
)
def test_every_command_has_help(command, capsys):
    assert exit_code([command, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


def test_detectors_are_listed(capsys):
    assert exit_code(["detectors"]) == 0
    listed = capsys.readouterr().out
    assert "hdetr-r50" in listed
    assert "rt_detr" in listed


def test_the_paper_s_head_is_described(capsys):
    assert exit_code(["head", "describe", "--json"]) == 0
    assert '"parameters": 3261712' in capsys.readouterr().out
