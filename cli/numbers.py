"""Options that are lists of numbers."""

from __future__ import annotations

from frozen_cache.errors import UserError


def whole_numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    """(1, 4, 6) of `1,4,6`; None where the option is not given."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{option} {text}: give whole numbers with commas between them, like 1,4,6") from None
