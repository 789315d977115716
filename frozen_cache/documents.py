"""Documents that grow: fields that came later, left out of the JSON while they say nothing new."""

from __future__ import annotations

from typing import Any

from pydantic import Field


def added_later(default: Any) -> Any:
    """A pydantic field that documents of before do not have: it is written only where it differs from `default`.

    The fingerprint of a document is the hash of its JSON. A field made by this changes neither the JSON nor the hash
    of a document that does not use it, so that what an earlier version wrote is read, and verifies, as it stands.
    """
    return Field(default=default, exclude_if=lambda value: value == default)
