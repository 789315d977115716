"""What people read fits their terminal; what a pipe gets is whole."""

import sys
from pathlib import Path

import pytest

from frozen_cache.cli.main import exit_code
from frozen_cache.stages.ablate import COLUMNS, AblationResult
from frozen_cache.terminal import folded, table_lines


@pytest.fixture
def terminal(monkeypatch):
    """stdout is a terminal of so many columns."""

    def of(columns):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)

    return of


@pytest.mark.parametrize("command", [["detectors"], ["head", "describe"]])
def test_a_terminal_of_80_columns_has_room_and_the_words_are_those_of_a_pipe(capsys, terminal, command):
    assert exit_code(command) == 0
    piped = capsys.readouterr().out
    assert max(map(len, piped.splitlines())) > 80
    terminal(80)
    assert exit_code(command) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.split() == piped.split()


def test_an_ablation_s_table_has_room_and_is_markdown_for_a_pipe():
    names = ["none", "deformable attention in two layers, with the queries of the last"]
    row = {"GMACs": 133.25, "parameters": 12_345_678} | dict.fromkeys(COLUMNS[3:-1], 0.2139) | {"minutes": 1234.5}
    result = AblationResult("Seeds", [{"variant": name} | row for name in names], Path("out"))
    lines = result.text(width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2] == names[1] and lines[1].startswith("none ") and lines[3].startswith("    ")
    assert result.text(width=80).replace("|", " ").split()[:9] == list(COLUMNS[:9])
    assert "12,345,678" in lines[3] and "0.214" in lines[3]
    assert result.text(width=None) == result.markdown()


def test_long_words_are_never_broken(terminal):
    terminal(40)
    assert folded(f"see {'x' * 50} there", indent=2) == ["see", f"  {'x' * 50}", "  there"]


def test_a_table_that_fits_keeps_its_first_column():
    rows = [("module", "kind"), ("feature_map.neck", "Projection")]
    assert (
        table_lines(rows, width=40)
        == table_lines(rows, width=None)
        == ["module            kind", "feature_map.neck  Projection"]
    )
