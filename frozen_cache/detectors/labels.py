"""Labels of a detector and categories of a data set: which label is which category."""

from __future__ import annotations

import re
from collections.abc import Mapping
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


def match_labels(spec: DetectorSpec, categories: list[dict[str, Any]]) -> dict[int, int]:
    """Label -> category id of the data set, for the labels that the data set knows.

    By name where both sides have names; by id where a label is the category id itself, or where 91 nameless columns
    meet categories numbered as COCO's; else, where the counts are equal, in the order of the category ids. Labels
    without a category are left out; a category without a label is an error.

    Args:
        spec: the detector's.
        categories: `{"id", "name"}` as COCO lists them.

    Raises:
        UserError: names the categories that no label stands for.
    """
    if not categories:
        raise UserError("the annotation file lists no categories; a detector's labels cannot be matched to it")
    ids = [int(category["id"]) for category in categories]
    if spec.label_names is not None:
        mapping = _by_name(spec.label_names, categories)
        if not mapping and spec.label_is_category_id:
            mapping = _by_id(spec, ids)
    elif spec.label_is_category_id:
        mapping = _by_id(spec, ids)
    elif spec.num_labels == len(ids):
        mapping = dict(enumerate(sorted(ids)))
    elif spec.num_labels == COCO_COLUMNS and _numbered_as_coco(categories):
        mapping = _by_id(spec, ids)
    else:
        raise UserError(
            f"{spec.name} has {spec.num_labels} labels without names, the data set {len(ids)} categories; "
            "give a detector with as many labels, or with names in its id2label"
        )
    missing = [category for category in categories if int(category["id"]) not in mapping.values()]
    if missing:
        known = ", ".join(list((spec.label_names or {}).values())[:5]) or f"labels 0 to {spec.num_labels - 1}"
        raise UserError(
            f"{spec.name} has no label for {len(missing)} of the data set's {len(ids)} categories: {_listed(missing)} "
            f"(it knows {known} ...); take a detector trained on these classes, or leave them out of the annotations"
        )
    return mapping


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
