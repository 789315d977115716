"""Which code made a run."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def code_version() -> str:
    """`0.1.0`, and in a checkout the commit too: `0.1.0 (3f2a9c1d0b4e, with changes)`."""
    try:
        release = version("frozen-cache")
    except PackageNotFoundError:
        release = "unknown"
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return release
    return f"{release} ({commit}{', with changes' if _git('status', '--porcelain', '-uno') else ''})"


def _git(*arguments: str) -> str | None:
    """git's answer in the folder of this file; None where that is no checkout of ours."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
