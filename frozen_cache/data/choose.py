"""From what the user says of classes and crowds to `AnnotationChoices`: names become ids and labels."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from frozen_cache.data.choices import AnnotationChoices, Crowds
from frozen_cache.data.numbers import whole_number
from frozen_cache.errors import UserError
from frozen_cache.near_names import perhaps_meant


def choose_annotations(
    *,
    categories: Mapping[int, str],
    label_names: Mapping[int, str],
    num_labels: int,
    crowds: str = "as-marked",
    skip_bad: bool = False,
    only: Iterable[str] = (),
    labels: Iterable[str] = (),
    label_map: Iterable[str] = (),
) -> AnnotationChoices:
    """The choices for a data set and a detector.

    Args:
        categories: id -> name of the data set's.
        label_names: label -> name of the detector's; `labels` go before them.
        only: category names or ids.
        labels: names of the labels 0, 1, 2 ...
        label_map: `CATEGORY=LABEL`, each by name or number, or the path of a TOML file of such lines.

    Raises:
        UserError: a category or label that is not there.
    """
    if crowds not in ("as-marked", "as-objects"):
        raise UserError(f"--crowds {crowds}: give as-marked or as-objects")
    labels = tuple(labels)
    names = dict(enumerate(labels)) if labels else dict(label_names)
    pairs = [pair for text in label_map for pair in _pairs(text)]
    mapped = {
        category_id(left, categories, option="--map"): _label(right, names, num_labels=num_labels)
        for left, right in pairs
    }
    return AnnotationChoices(
        crowds=cast(Crowds, crowds),
        skip_bad=skip_bad,
        only=tuple(sorted({category_id(text, categories, option="--only") for text in only})),
        labels=labels,
        label_map=dict(sorted(mapped.items())),
    )


def _pairs(text: str) -> list[tuple[str, str]]:
    if "=" in text:
        left, _, right = text.partition("=")
        return [(left.strip(), right.strip())]
    try:
        content = tomllib.loads(Path(text).read_text(encoding="utf-8"))
    except OSError:
        raise UserError(
            f"--map {text}: give CATEGORY=LABEL, or a TOML file with a line `category = label` each"
        ) from None
    except ValueError as error:
        raise UserError(f"--map {text} is not TOML that can be read: {error}") from None
    return [(str(key), str(value)) for key, value in content.items()]


def category_id(text: str, categories: Mapping[int, str], *, option: str) -> int:
    """The id of a category by its id, or by a name that only one has."""
    number = whole_number(text)
    if number is not None and number in categories:
        return number
    found = [key for key, name in categories.items() if name == text.strip()]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{option}: the categories {', '.join(map(str, found))} are all named {text}: give an id")
    known = ", ".join(list(categories.values())[:10]) + (" ..." if len(categories) > 10 else "")
    meant = perhaps_meant(text, categories.values())
    raise UserError(f"{option}: there is no category {text}{meant}; the data set has {known}")


def _label(text: str, names: Mapping[int, str], *, num_labels: int) -> int:
    found = [label for label, name in names.items() if name == text]
    if found:
        return found[0]
    number = whole_number(text.removeprefix("LABEL_"))
    if number is not None and 0 <= number < num_labels:
        return number
    known = (
        ", ".join(list(names.values())[:10]) + (" ..." if len(names) > 10 else "") or f"labels 0 to {num_labels - 1}"
    )
    raise UserError(f"--map: the detector has no label {text}{perhaps_meant(text, names.values())}; it has {known}")
