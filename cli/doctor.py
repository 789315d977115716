"""`frozen-cache doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from frozen_cache.cli.output import tell


def doctor(device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto") -> None:
    """Versions, device, which kernels are used and why, what is missing, and a check. Exit code 1 where it fails."""
    from frozen_cache.stages.doctor import doctor as look

    found = look(device=device)
    tell(found.text())
    raise typer.Exit(found.exit_code)
