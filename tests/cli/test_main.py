"""How commands end: exit codes and one-line errors, through the real entry point."""

from __future__ import annotations

import pytest

from frozen_cache.cli import main
from frozen_cache.cli.main import exit_code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train-head", "--cache", "nowhere.zarr", "--out", "run"], "nowhere.zarr"),
        (["head", "describe", "--set", "head.width"], "key=value"),
        (["evaluate", "--cache", "nowhere.zarr", "--out", "results"], "--head"),
        (["evaluate", "--cache", "nowhere.zarr", "--out", "results", "--baseline", "box"], "nowhere.zarr"),
        (["evaluate", "--cache", "nowhere.zarr", "--out", "results", "--baseline", "bok"], "no baseline"),
        (["cache", "info", "nowhere.zarr"], "nowhere.zarr"),
        (["cache", "verify", "nowhere.zarr"], "nowhere.zarr"),
        (["ablate", "--cache", "a.zarr", "--val-cache", "b.zarr", "--grid", "table2", "--out", "o"], "no cache a.zarr"),
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
        (["export", "--run", "r", "--out", "o", "--format", "onnx", "--size", "480"], "as in 480x640"),
        (["export", "--run", "r", "--out", "o", "--format", "onnx", "--size", "0x640"], "--size 0x640"),
        (["export", "--run", "r", "--out", "o", "--format", "onnx", "--size", "480x640"], "no model r"),
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


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["evaluate"],
        ["train-head", "--epochz", "3"],
        ["export", "--run", "r", "--out", "o", "--size", "9x9"],
    ],
)
def test_a_mistyped_command_line_exits_with_2(arguments, capsys):
    assert exit_code(arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        *(
            f"predict --model r p.jpg --out o {wrong}"
            for wrong in (
                *("--threshold 3", "--threshold nan", "--mask-threshold -1", "--max-detections 0"),
                *("--batch-size 0", "--frame-step 0", "--workers -2"),
            )
        ),
        *(f"train-head --cache c --out o --memory-gb {wrong}" for wrong in ("nan", "inf", "-1")),
        "extract-features --detector d --images i --annotations a --out o --workers 0",
        "cache repair c --workers 0",
    ],
)
def test_a_number_out_of_range_names_its_option(line, capsys):
    assert exit_code(line.split()) == 2
    assert f"Invalid value for '{line.split()[-2]}'" in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path, monkeypatch):
    from frozen_cache.errors import UserError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        exit_code(["cache", "info", "nowhere.zarr", "--debug"])


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


@pytest.mark.parametrize(
    "command", ["demo", "extract-features", "train-head", "evaluate", "ablate", "head describe", "cache repair"]
)
def test_every_default_stands_in_the_help(command, capsys):
    """Rich takes brackets in help texts for markup and drops them."""
    import typer

    from frozen_cache.cli.main import app

    found = typer.main.get_command(app)
    for name in command.split():
        found = found.commands[name]
    written = [option.help for option in found.params if option.help and "[default:" in option.help]
    assert exit_code([*command.split(), "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(" ".join(text.split()) in shown for text in written)


def test_a_command_s_help_has_an_example_that_its_options_know(capsys):
    from frozen_cache.cli.examples import EXAMPLES

    for command, example in EXAMPLES.items():
        assert exit_code([command, "--help"]) == 0
        shown = capsys.readouterr().out
        assert all(line.strip() in shown for line in example.split("\n"))
        assert all(word in shown for word in example.split() if word.startswith("--"))


def test_the_version_is_printed(capsys):
    from importlib.metadata import version

    assert exit_code(["--version"]) == 0
    assert capsys.readouterr().out == f"frozen-cache {version('frozen-cache')}\n"


@pytest.mark.parametrize("option", ["--quiet", "--no-progress", "--progress", "--debug"])
def test_general_options_stand_anywhere(option, capsys):
    assert exit_code([option, "detectors"]) == exit_code(["detectors", option]) == 0
    assert capsys.readouterr().err == ""


def test_a_mistyped_path_is_found_before_torch_is_imported(tmp_path):
    import json
    import subprocess
    import sys

    (tmp_path / "images").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.json").touch()
    for file in ("run/run.json", "c.zarr/zarr.json", "masks/predict.json"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    extract = "extract-features --images images --annotations a.json --out o.zarr --detector"
    said = {
        "train-head --cache nowhere.zarr --out run": "there is no cache nowhere.zarr",
        "ablate --cache nowhere.zarr --val-cache b --grid table2 --out o": "there is no cache nowhere.zarr",
        "evaluate --cache nowhere.zarr --head run --out o": "there is no cache nowhere.zarr",
        "visualize --cache nowhere.zarr --head run --out o": "there is no cache nowhere.zarr",
        "evaluate --cache nowhere.zarr --baseline box --out o --mixed-precision b": "--mixed-precision b: give one of",
        "evaluate --cache nowhere.zarr --baseline box --out o": "there is no cache nowhere.zarr",
        "visualize --cache nowhere.zarr --baseline box --out o": "there is no cache nowhere.zarr",
        "visualize --cache nowhere.zarr --baseline bok --out o": "no baseline `bok`: known are training-free",
        "cache info folder": "folder is not a cache: it holds no zarr.json",
        "cache verify nowhere.zarr": "there is no cache nowhere.zarr",
        "cache repair nowhere.zarr": "there is no cache nowhere.zarr; `frozen-cache extract-features",
        "cache info cc.zarr": "there is no cache cc.zarr (did you mean c.zarr?); `frozen-cache extract-features",
        "export --run rnu --out o": "there is no run rnu (did you mean run?); `frozen-cache train-head",
        "predict --model rnu picture.jpg --out o": "there is no model rnu (did you mean run?): give a run",
        "predict --model nowhere picture.jpg --out o": "there is no model nowhere",
        "export --run nowhere --out o": "there is no run nowhere",
        "export --run nowhere --out o --format onnx": "there is no model nowhere",
        f"{extract} hf:nowhere": "hf:nowhere: nowhere does not exist; give a folder",
        f"{extract} hf:a.json": "hf:a.json: a.json is a file; give a folder",
        f"{extract} mine.py:detector": "--detector: no such file mine.py",
        f"{extract} rtdetr-r50 --weights best.pth": "--weights best.pth: no such file",
        f"{extract} hdetr-r5 --weights a.json": "no detector is named hdetr-r5: did you mean hdetr-r50",
        f"{extract} hdetr-r50": "--detector hdetr-r50 needs its checkpoint: add --weights FILE",
        f"{extract} mine.py": "--detector mine.py lacks the factory's name",
        f"{extract.replace('a.json', 'b.json')} hf:m": "there is no annotation file b.json",
        f"{extract.replace('images images', 'images nowhere')} hf:m": "there is no image folder nowhere",
        "train-head --live --out r --images images --annotations a.json --detector hf:m": "hf:m: m does not exist",
        "predict --model nowhere picture.jpg --out o --detector hf:moved": "there is no model nowhere",
        "export --run nowhere --out o --detector hf:moved": "hf:moved: moved does not exist",
        "predict --model run picture.jpg --out o": "picture.jpg: no image or video is there",
        "predict --model run folder --out o": "folder: no image or video is there",
        "predict --model run a.json --out folder --save mask": "--save mask: give one of overlays, masks, label-map",
        "predict --model run a.json --out run": "--out run exists and holds other things (run.json)",
        "predict --model run a.json --out run/run.json": "--out run/run.json exists and is a file",
        "predict --model run a.json --out masks": "--out masks holds results already: add --overwrite",
        "predict --model run a.json --out o --roi-sizes 24,": "--roi-sizes 24,: give whole numbers",
        "train-head --cache c.zarr --out o --preset papr": "no preset `papr`: known are",
        "train-head --cache c.zarr --out o --set head.widht=3": "did you mean head.width?",
        "train-head --cache c.zarr --out o --epochs 0": "configuration key `optim.epochs`",
        "train-head --cache c.zarr --out o --only cat": "--only goes with --live",
        "train-head --cache c.zarr --out o --views 2": "--views goes with --live",
        "train-head --cache c.zarr --out o --lsj": "--lsj goes with --live",
        "ablate --cache c.zarr --val-cache c.zarr --grid table2 --out o --map a=b": "--map goes with --live",
        "ablate --cache c.zarr --grid table2 --out o": "give --val-cache",
        "ablate --cache c.zarr --val-cache c.zarr --grid table22 --out o": "no grid `table22` (did you mean table2",
        "ablate --cache c.zarr --val-cache c.zarr --grid table10 --out o --preset papr": "no preset `papr`",
        "ablate --cache c.zarr --val-cache c.zarr --grid table10 --out o --set head.widht=3": "did you mean head.width",
        "ablate --cache c.zarr --val-cache c.zarr --grid table10 --out masks": "--out masks exists and holds no ablat",
        "export --run run --out o --format onnx --check nowhere.jpg": "--check nowhere.jpg: no such file",
        "cache repair c.zarr --images nowhere": "there is no image folder nowhere",
        "cache repair c.zarr --annotations nowhere.json": "there is no annotation file nowhere.json",
    }
    code = """import json, sys
from frozen_cache.cli.main import exit_code
codes = [exit_code(line.split()) for line in json.loads(sys.argv[1])]
print(json.dumps([codes, "torch" in sys.modules]))"""
    command = [sys.executable, "-c", code, json.dumps(list(said))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == [[2] * len(said), False], done.stderr
    for line, expected in zip(done.stderr.splitlines(), said.values(), strict=True):
        assert line.startswith("error: ") and expected in line


@pytest.mark.parametrize("module", ["frozen_cache", "cli"])
def test_python_m_runs_the_command(module):
    import runpy
    import sys

    arguments, sys.argv = sys.argv, ["frozen-cache", "--version"]
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__")
    finally:
        sys.argv = arguments
    assert ended.value.code == 0


def test_the_console_command_keeps_freed_memory_before_it_does_anything(monkeypatch):
    done = []
    monkeypatch.setattr(main, "keep_freed_memory", lambda: done.append("kept"))
    monkeypatch.setattr(main, "exit_code", lambda arguments: done.append(arguments) or 0)
    monkeypatch.setattr("sys.argv", ["frozen-cache", "doctor"])
    with pytest.raises(SystemExit):
        main.run()
    assert done == ["kept", ["doctor"]]


@pytest.mark.parametrize(("rank", "printed"), [("0", "25 steps in 0.0 minutes"), ("1", "")])
def test_one_process_of_several_says_how_a_training_ended(rank, printed, tmp_path, monkeypatch, capsys):
    from frozen_cache.stages import train

    result = train.TrainResult(out=tmp_path, steps=25, seconds=1.0, best_ap=None, best_step=None)
    monkeypatch.setattr(train, "train_head", lambda **options: result)
    for name, value in {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "c.zarr").mkdir()
    (tmp_path / "c.zarr" / "zarr.json").touch()
    assert exit_code(["train-head", "--cache", str(tmp_path / "c.zarr"), "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.partition("\n")[0] == printed


def test_names_do_nothing_to_the_terminal(tmp_path, capsys):
    assert exit_code(["cache", "info", str(tmp_path / "\x1b[2Jno\ud800.zarr")]) == 2
    error = capsys.readouterr().err
    assert "\\x1b[2Jno\\ud800.zarr" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "--model", "m", "", "--out", "o"], "an argument is empty"),
        (["predict", "--model", "m", "a.jpg", "--out", ""], "--out is empty"),
        (["predict", "--model", "m", "a.jpg", "--out="], "--out is empty"),
        (["train-head", "--cache", "c.zarr", "--out", "r", "--preset", " "], "--preset is empty"),
        (["train-head", "--cache", "c.zarr", "--out", "r\udcff"], "r\\udcff is no UTF-8 text"),
        (["cache", "subset", "c.zarr", "--out", "o.zarr", "--categories", ","], "--categories ,: it names nothing"),
    ],
)
def test_what_is_empty_or_no_text_is_refused(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.zarr").mkdir()
    (tmp_path / "c.zarr" / "zarr.json").write_text("{}")
    assert exit_code(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 90.9 TiB for an array"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 2 bytes\nmore"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    ],
)
def test_no_memory_is_one_line(error, monkeypatch, capsys):
    def invoke(*arguments, **options):
        raise error

    monkeypatch.setattr(main, "invoke", invoke)
    assert exit_code(["doctor"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: memory is full (") and said.count("\n") == 1
    with pytest.raises(type(error)):
        exit_code(["doctor", "--debug"])


def test_mistakes_of_ours_are_not_hidden(monkeypatch):
    def invoke(*arguments, **options):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(main, "invoke", invoke)
    with pytest.raises(RuntimeError, match="shapes"):
        exit_code(["doctor"])
