"""README and docs promise only what was measured, and name only what exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from frozen_cache.cli.general import MODES
from frozen_cache.cli.main import app
from frozen_cache.cli.project import read_project

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = typer.main.get_command(app).commands
GENERAL = {"--install-completion", *MODES, "--config", "--debug", "--help", "--version"}


def names(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words of each `frozen-cache ...` line in the page's shell blocks, comments cut off."""
    found = []
    for block in blocks(page, "sh"):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            words = shlex.split(line.strip(), comments=True)
            if words and Path(words[0]).name == "frozen-cache":
                found.append(words[1:])
    return found


def test_the_figures_are_the_benchmarks_results() -> None:
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "fill_pages.py", "--check"], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_file_that_a_page_links_is_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=names)
def test_commands_of_the_pages_exist_with_their_options(page: Path) -> None:
    for words in commands(page):
        found, rest = typer.main.get_command(app), list(words)
        while hasattr(found, "commands") and rest and rest[0] in found.commands:
            found = found.commands[rest.pop(0)]
        assert not hasattr(found, "commands") or not rest or rest[0] in GENERAL, words
        known = {text for option in found.params for text in (*option.opts, *option.secondary_opts)} | GENERAL
        options = [word.partition("=")[0] for word in rest if word.startswith("-")]
        assert set(options) <= known, (words, set(options) - known)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")], ids=names)
def test_project_files_of_the_pages_are_understood(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "toml"):
        if "[train-head]" in block or "[extract-features]" in block:
            (tmp_path / "p.toml").write_text(block)
            assert read_project(tmp_path / "p.toml", COMMANDS)


def test_every_page_is_in_the_site_and_every_entry_has_a_page() -> None:
    entries = re.findall(r"'([\w-]+\.md)'", str(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    assert sorted(entries) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


def test_the_site_has_no_stop_of_the_keyboard_that_nobody_sees_and_may_be_dark() -> None:
    """As seen in Chromium: a palette without a button is an unseen stop, and its scheme is never put on; a link on each
    line of code is such a stop too."""
    project = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    palettes = project["theme"]["palette"]
    assert all(palette["toggle"]["name"] and palette["toggle"]["icon"] for palette in palettes)
    assert {palette.get("scheme") for palette in palettes} == {None, "default", "slate"}
    assert "anchor_linenums" not in project["markdown_extensions"]["pymdownx"]["highlight"]


def test_pages_ask_no_other_computer_and_keep_names_whole() -> None:
    """Letters are the reader's own, not fetched from elsewhere; file names in tables are not broken (extra.css)."""
    project = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    assert project["theme"]["font"] is False
    for sheet in project["extra_css"]:
        assert "http" not in (ROOT / "docs" / sheet).read_text()
        assert "td:first-child code" in (ROOT / "docs" / sheet).read_text()
