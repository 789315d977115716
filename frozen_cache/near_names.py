"""Names that were perhaps meant by one that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def perhaps_meant(text: str, names: Iterable[str]) -> str:
    """` (did you mean heart?)` for `herat`, capitals aside; nothing where no name is near."""
    by_lower = {name.lower(): name for name in names}
    near = [by_lower[name] for name in get_close_matches(text.strip().lower(), by_lower, n=3)]
    return f" (did you mean {', '.join(near)}?)" if near else ""
