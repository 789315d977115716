"""Progress: silent from Python, lines through a pipe, a bar on request."""

from __future__ import annotations

import pytest

from frozen_cache import progress
from frozen_cache.progress import progress_bar, say, showing


def run(mode: progress.Mode | None, capsys: pytest.CaptureFixture[str], **options: object) -> str:
    with showing(mode):
        bar = progress_bar(total=3, desc="extract", unit="img", **options)
        for _ in range(3):
            bar.update()
            bar.set_postfix(loss="0.1")
        say("step 3: mask AP 0.5")
        bar.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_nothing_is_printed_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    bar = progress_bar(total=2, desc="extract", unit="img")
    bar.update()
    bar.close()
    say("hello")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert run("off", capsys) == ""


def test_a_pipe_gets_whole_lines_not_one_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    text = run(None, capsys)
    assert "\r" not in text
    lines = text.splitlines()
    assert lines[0] == "step 3: mask AP 0.5"
    assert len(lines) == 2 and lines[1].startswith("extract: 3/3 [")


def test_a_line_every_so_often(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    text = run("lines", capsys)
    assert "extract: 1/3" in text and "extract: 2/3" in text and "extract: 0/3" not in text


def test_a_bar_that_does_not_stay_leaves_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("lines", capsys, leave=False) == "step 3: mask AP 0.5\n"


def test_plain_says_things_without_bars(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plain", capsys) == "step 3: mask AP 0.5\n"


def test_other_processes_and_empty_work_show_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("bar", capsys, shown=False) == "step 3: mask AP 0.5\n"
    with showing("bar"):
        progress_bar(total=0, desc="extract", unit="img").close()
    assert capsys.readouterr().err == ""


def test_a_bar_is_drawn_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\rextract: 100%" in run("bar", capsys)
