"""`extract-features` and `cache` from the command line: exit codes, and what is printed."""

import importlib.util
from pathlib import Path

import pytest
import typer

from frozen_cache.cli import cache, extract
from frozen_cache.errors import UserError

FAKE = Path(__file__).parents[1] / "stages" / "fake_detector.py"

app = typer.Typer()
app.command("extract-features")(extract.extract_features)
app.add_typer(cache.app, name="cache")


def run(*arguments: object) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture
def options(tmp_path: Path) -> list[object]:
    spec = importlib.util.spec_from_file_location("fake_detector", FAKE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    images, annotations = module.write_folder(tmp_path / "data", images=4)
    return ["--detector", f"{FAKE}:detector", "--images", images, "--annotations", annotations]


def test_extract_info_verify_repair(options: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.zarr"
    run("extract-features", *options, "--out", out, "--segment-images", 2, "--views", 2, "--precision", "float32")
    assert "extracted 8 views" in capsys.readouterr().out
    run("extract-features", *options, "--out", out, "--views", 2, "--precision", "float32")
    assert capsys.readouterr().out == f"nothing is left to do\ncache: {out}\n"
    run("cache", "info", out)
    assert "4 of 4 committed, 2 views each" in capsys.readouterr().out
    run("cache", "verify", out)
    assert "4 segments" in (text := capsys.readouterr().out) and "all intact" in text
    [path] = (out / "segments").glob("00002.*/rows/c/0/0")
    content = bytearray(path.read_bytes())
    content[11] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"1 of 4 segments .* damaged, the first is segment 00002: rows/c/0/0"):
        run("cache", "verify", out)
    assert "segment 00002: rows/c/0/0 has changed" in capsys.readouterr().out
    run("cache", "repair", out, *options)
    assert "segment 2 was damaged and extracted again" in capsys.readouterr().out
    run("cache", "verify", out)
    run("cache", "repair", out, *options)
    assert "nothing is damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--precision", "int3"], "--precision int3: give one of float16, float32"),
        (["--encoder-layers", "one"], "--encoder-layers one: give whole numbers"),
        (["--shard", "1of2"], "--shard 1of2: give i/n"),
        (["--shard", "²/3"], "--shard ²/3: give i/n"),
        (["--shard", "0/" + "9" * 5000], "give i/n"),
        (["--shard", "0/1/2"], "--shard 0/1/2: give i/n"),
        (["--views", "99999999"], "--views 99999999: give 1 to 1000"),
        (["--autocast", "yes"], "--autocast yes"),
        (["--limit", "0"], "--limit 0"),
    ],
)
def test_options_that_make_no_sense_are_named(
    options: list[object], tmp_path: Path, more: list[str], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        run("extract-features", *options, "--out", tmp_path / "x.zarr", *more)
    assert not (tmp_path / "x.zarr").exists()


def test_commands_on_what_is_no_cache_say_so(tmp_path: Path) -> None:
    for command in ("info", "verify"):
        with pytest.raises(UserError, match="there is no cache"):
            run("cache", command, tmp_path / "none.zarr")
