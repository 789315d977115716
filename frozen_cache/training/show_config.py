"""A whole configuration as a TOML file that explains itself, and can be given back as `--preset FILE.toml`."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from frozen_cache.training.config import TrainConfig, all_keys, value_of

WIDTH = 78


def config_text(config: TrainConfig, *, title: str) -> str:
    """Every key with its value, what it means, and its default where that is another; unset ones as comments."""
    default = TrainConfig()
    lines = [
        f"# {title}",
        "# Set any of it by --set KEY=VALUE, KEY with its section (head.width=96).",
    ]
    keys = sorted(all_keys().items(), key=lambda item: "." in item[0])
    section = ""
    for key, field in keys:
        of, _, name = key.rpartition(".")
        if of != section:
            section = of
            lines += ["", f"[{section}]"]
            lines += _comment(TrainConfig.model_fields[section].description or "")
        value, usual = value_of(config, key), value_of(default, key)
        lines += ["", *_comment(field.description or "")]
        if value != usual:
            lines.append(f"# default: {_toml(usual)}")
        lines.append(f"# {name} is not set" if value is None else f"{name} = {_toml(value)}")
    return "\n".join(lines)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), WIDTH, break_on_hyphens=False)]


def _toml(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value) if isinstance(value, float) else json.dumps(value)
