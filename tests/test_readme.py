"""The README promises only what was measured."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_readme_s_figures_are_the_benchmarks_results():
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "fill_readme.py", "--check"], check=False)
    assert done.returncode == 0


def test_every_file_that_the_readme_links_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link
