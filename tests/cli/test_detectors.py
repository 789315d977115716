"""`frozen-cache detectors` lists what `--detector` takes."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from frozen_cache.cli.detectors import detectors
from frozen_cache.detectors.hf.families import FAMILIES
from frozen_cache.detectors.hf.official_keys import BY_NAME
from frozen_cache.detectors.official import NAMED


def test_every_known_detector_is_listed_with_its_strides_and_its_source() -> None:
    app = typer.Typer()
    app.command()(detectors)
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0, result.output
    for name, named in [*NAMED.items(), *BY_NAME.items()]:
        assert name in result.output and named.weights in result.output
    assert all(f"  {name} " in result.output for name in FAMILIES)
    assert "47.9 M" in result.output and "8 16 32 64" in result.output and "FILE.py:FACTORY" in result.output
