"""Labels of a detector and categories of a data set: which label is which category."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from frozen_cache.detectors.output import DetectorSpec
from frozen_cache.errors import UserError

COCO_COLUMNS = 91
"""Score columns of a detector whose labels are COCO's category ids, 1 to 90."""
NO_NAME = re.compile(r"LABEL_\d+|N/?A|\s*", re.IGNORECASE)
ALIASES = {  # the other common spelling (VOC, Open Images) -> the COCO name, both without spaces
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
    "television": "tv",
    "mobilephone": "cellphone",
    "hairdryer": "hairdrier",
    "doughnut": "donut",
    "skis": "ski",
}


@dataclass(frozen=True)
class LabelNames:
    """What a configuration says of its labels."""

    names: dict[int, str] | None
    label_is_category_id: bool


def names_from_config(id2label: Mapping[Any, str] | None, num_labels: int) -> LabelNames:
    """The real names in a transformers `id2label`: `LABEL_n` and `N/A` entries name nothing.

    A table of 91 columns with COCO's names and gaps (12 is none) is numbered by COCO's category ids.
    """
    entries = {int(label): str(name) for label, name in (id2label or {}).items() if int(label) < num_labels}
    names = {label: name for label, name in entries.items() if not NO_NAME.fullmatch(name)}
    by_id = num_labels == COCO_COLUMNS and normal_name(names.get(1, "")) == "person" and 12 not in names
    return LabelNames(names=names or None, label_is_category_id=by_id)


def match_labels(
    spec: DetectorSpec,
    categories: list[dict[str, Any]],
    *,
    used: Collection[int] | None = None,
    names: Sequence[str] = (),
    chosen: Mapping[int, int] | None = None,
) -> dict[int, int]:
    """Label -> category id of the data set, for the labels that the data set knows.

    As `chosen` says; else by name where both sides have names; by id where a label is the category id itself, or where
    91 nameless columns meet categories numbered as COCO's. Labels without a category are left out; a used category
    without a label is an error.

    Args:
        spec: the detector's.
        categories: `{"id", "name"}` as COCO lists them.
        used: ids of the categories that annotations have; None for all. Others need no label, and get theirs where
            they have one: also where nothing is annotated, as in COCO's test-dev.
        names: of the labels 0, 1, 2 ..., where the user gave them.
        chosen: category id -> label, where the user said so.

    Raises:
        UserError: categories that no label stands for, two used ones of one name, or labels without names.
    """
    if not categories:
        raise UserError("the annotation file lists no categories; a detector's labels cannot be matched to it")
    wanted = {int(category["id"]) for category in categories} & set(used if used is not None else _ids(categories))
    mapping = {label: category for category, label in (chosen or {}).items() if category in _ids(categories)}
    rest = [category for category in categories if int(category["id"]) not in mapping.values()]
    needed = [category for category in rest if int(category["id"]) in wanted]
    if needed or (rest and not wanted):
        free = {label: name for label, name in _named(spec, names).items() if label not in mapping}
        others = [category for category in rest if category not in needed]
        found = _matched(spec, free, needed, others, named=bool(names))
        mapping |= {label: category for label, category in found.items() if label not in mapping}
    missing = [category for category in needed if int(category["id"]) not in mapping.values()]
    if missing := missing or ([] if mapping else rest):
        known = ", ".join(list(_named(spec, names).values())[:5]) or f"labels 0 to {spec.num_labels - 1}"
        raise UserError(
            f"{spec.name} has no label for {len(missing)} of the data set's {len(wanted) or len(rest)} categories: "
            f"{_listed(missing)} (it knows {known} ...): name it with --map CATEGORY=LABEL, take a part of the classes "
            "with --only, or another detector"
        )
    return dict(sorted(mapping.items()))


def _ids(categories: list[dict[str, Any]]) -> list[int]:
    return [int(category["id"]) for category in categories]


def _named(spec: DetectorSpec, names: Sequence[str]) -> dict[int, str]:
    """Label -> name, the user's before the detector's own."""
    if names and len(names) != spec.num_labels:
        raise UserError(f"--labels names {len(names)} labels, {spec.name} has {spec.num_labels}")
    return dict(enumerate(names)) if names else dict(spec.label_names or {})


def _matched(
    spec: DetectorSpec,
    free: Mapping[int, str],
    needed: list[dict[str, Any]],
    others: list[dict[str, Any]],
    *,
    named: bool,
) -> dict[int, int]:
    """Label -> category id, by name or by id; of two categories of one name the needed one has it."""
    categories = needed + others
    if free:
        _refuse_alike(needed)
        mapping = _by_name(free, categories)
        return mapping or (_by_id(spec, _ids(categories)) if spec.label_is_category_id and not named else {})
    if spec.label_is_category_id or (spec.num_labels == COCO_COLUMNS and _numbered_as_coco(categories)):
        return _by_id(spec, _ids(categories))
    raise UserError(
        f"{spec.name} has {spec.num_labels} labels without names, which could stand for any of the categories "
        f"{_listed(needed or others)}: give --labels NAME,NAME ... (label 0 first), or --map CATEGORY=LABEL"
    )


def _refuse_alike(categories: list[dict[str, Any]]) -> None:
    """Two used categories whose names are the same to the letter cannot be told apart by name."""
    seen: dict[str, int] = {}
    for category in categories:
        name = str(category.get("name", ""))
        if name in seen:
            raise UserError(
                f"the categories {seen[name]} and {category['id']} are both named {name}: map them to the detector's "
                f"labels with --map {seen[name]}=LABEL --map {category['id']}=LABEL (one label for both makes them one)"
            )
        seen[name] = int(category["id"])


def normal_name(name: str) -> str:
    """A class name for comparing: lower case, no spaces, `_` or `-`, one spelling of the common COCO aliases."""
    plain = re.sub(r"[\s_\-]+", "", name.lower())
    return ALIASES.get(plain, plain)


def _by_name(label_names: Mapping[int, str], categories: list[dict[str, Any]]) -> dict[int, int]:
    """By equal normal names; an exact name wins over an alias, and the lowest label over its doubles."""
    by_name: dict[str, int] = {}
    for alike in (normal_name, str):  # exact names last: they overwrite
        by_name |= {alike(str(category.get("name", ""))): int(category["id"]) for category in reversed(categories)}
    mapping: dict[int, int] = {}
    for label, name in sorted(label_names.items()):
        category = by_name.get(name, by_name.get(normal_name(name)))
        if category is not None and category not in mapping.values():
            mapping[label] = category
    return mapping


def _by_id(spec: DetectorSpec, ids: list[int]) -> dict[int, int]:
    return {category: category for category in sorted(ids) if 0 <= category < spec.num_labels}


def _numbered_as_coco(categories: list[dict[str, Any]]) -> bool:
    """True where some category stands under its number in COCO (person 1, cat 17 ...), as a sign for all."""
    numbers = {"person": 1, "car": 3, "dog": 18, "cat": 17, "chair": 62, "bottle": 44, "bird": 16, "horse": 19}
    found = {normal_name(str(category.get("name", ""))): int(category["id"]) for category in categories}
    return any(found.get(name) == number for name, number in numbers.items())


def _listed(categories: list[dict[str, Any]], most: int = 8) -> str:
    names = [str(category.get("name", category["id"])) for category in categories[:most]]
    return ", ".join(names) + (" ..." if len(categories) > most else "")
