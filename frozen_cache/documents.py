"""Documents that grow: fields that came later, left out of the JSON while they say nothing new."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field
from pydantic_core import to_jsonable_python


def added_later(default: Any) -> Any:
    """A pydantic field that documents of before do not have: it is written only where it differs from `default`.

    The fingerprint of a document is the hash of its JSON. A field made by this changes neither the JSON nor the hash
    of a document that does not use it, so that what an earlier version wrote is read, and verifies, as it stands.
    """
    return Field(default=default, exclude_if=lambda value: value == default)


def whole(document: BaseModel) -> dict[str, Any]:
    """The document as JSON, with the fields of `added_later` that it leaves out, and those of documents that are its
    fields."""
    values = {name: getattr(document, name) for name in type(document).model_fields}
    return {
        name: whole(value) if isinstance(value, BaseModel) else to_jsonable_python(value)
        for name, value in values.items()
    }
