"""Matching a detector's labels to the categories of a data set."""

from __future__ import annotations

from typing import Any

import pytest

from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.detectors.labels import match_labels, names_from_config
from frozen_cache.detectors.output import DetectorSpec
from frozen_cache.errors import UserError


def _spec(num_labels: int, names: dict[int, str] | None = None, **fields: Any) -> DetectorSpec:
    return DetectorSpec(
        name="hf:some",
        family="detr",
        weights_sha256="",
        input=InputRule(resize="stretch", size=(8, 8)),
        query_dim=4,
        num_queries=3,
        num_labels=num_labels,
        label_names=names,
        **fields,
    )


def _categories(**names: int) -> list[dict[str, Any]]:
    return [{"id": number, "name": name.replace("__", " ")} for name, number in names.items()]


def test_labels_match_by_name_whatever_the_ids() -> None:
    spec = _spec(3, {0: "person", 1: "traffic light", 2: "tv"})
    assert match_labels(spec, _categories(tv=72, person=1, traffic__light=10)) == {0: 1, 1: 10, 2: 72}


@pytest.mark.parametrize(
    ("label", "category"),
    [
        ("Traffic_Light", "traffic light"),
        ("traffic-light", "Traffic light"),
        ("tvmonitor", "tv"),
        ("sofa", "couch"),
        ("aeroplane", "airplane"),
        ("motorbike", "motorcycle"),
        ("pottedplant", "potted plant"),
        ("diningtable", "dining table"),
        ("tv", "tvmonitor"),
        ("hair drier", "hair dryer"),
    ],
)
def test_the_common_spellings_of_a_class_are_one(label: str, category: str) -> None:
    assert match_labels(_spec(1, {0: label}), [{"id": 7, "name": category}]) == {0: 7}


def test_an_exact_name_wins_over_an_alias() -> None:
    spec = _spec(2, {0: "sofa", 1: "couch"})
    assert match_labels(spec, _categories(sofa=3, couch=4)) == {0: 3, 1: 4}


def test_labels_that_the_data_set_does_not_know_are_dropped() -> None:
    assert match_labels(_spec(3, {0: "cat", 1: "dog", 2: "cow"}), _categories(dog=5)) == {1: 5}


def test_a_category_without_a_label_is_an_error_that_names_it() -> None:
    with pytest.raises(
        UserError, match=r"no label for 2 of the data set's 3 categories: zebra, giraffe \(it knows cat"
    ):
        match_labels(_spec(2, {0: "cat", 1: "dog"}), _categories(cat=1, zebra=2, giraffe=3))


def test_labels_that_are_category_ids_match_by_id() -> None:
    spec = _spec(91, None, label_is_category_id=True)
    assert match_labels(spec, _categories(anything=1, other=90)) == {1: 1, 90: 90}
    with pytest.raises(UserError, match="no label for 1 of the data set's 2 categories: far"):
        match_labels(spec, _categories(near=1, far=91))


def test_without_names_equal_counts_match_in_the_order_of_ids() -> None:
    assert match_labels(_spec(3), _categories(a=30, b=10, c=20)) == {0: 10, 1: 20, 2: 30}


def test_without_names_other_counts_are_an_error() -> None:
    with pytest.raises(UserError, match="has 3 labels without names, the data set 2 categories"):
        match_labels(_spec(3), _categories(a=1, b=2))


def test_91_nameless_columns_are_category_ids_where_the_data_set_is_numbered_as_coco() -> None:
    assert match_labels(_spec(91), _categories(person=1, dog=18)) == {1: 1, 18: 18}
    with pytest.raises(UserError, match="91 labels without names, the data set 2 categories"):
        match_labels(_spec(91), _categories(screw=1, nut=2))


def test_a_data_set_without_categories_is_an_error() -> None:
    with pytest.raises(UserError, match="lists no categories"):
        match_labels(_spec(3), [])


def test_placeholder_names_are_no_names() -> None:
    assert names_from_config({0: "LABEL_0", 1: "LABEL_1"}, 2).names is None
    assert names_from_config(None, 2).names is None
    assert names_from_config({0: "LABEL_0", 1: "person"}, 2).names == {1: "person"}


def test_a_table_with_cocos_gaps_is_numbered_by_category_id() -> None:
    table = {0: "N/A", 1: "person", 11: "fire hydrant", 12: "N/A", 13: "stop sign"}
    found = names_from_config(table, 91)
    assert found.label_is_category_id
    assert found.names == {1: "person", 11: "fire hydrant", 13: "stop sign"}
    assert not names_from_config({0: "person", 1: "bicycle"}, 2).label_is_category_id
