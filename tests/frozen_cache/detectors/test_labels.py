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


@pytest.mark.parametrize("categories", [{"a": 30, "b": 10, "c": 20}, {"a": 1, "b": 2}])
def test_labels_without_names_are_never_matched_by_their_order(categories: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"3 labels without names.*--labels NAME,NAME .*--map CATEGORY=LABEL"):
        match_labels(_spec(3), _categories(**categories))


def test_the_user_s_names_of_labels_go_before_the_detector_s() -> None:
    assert match_labels(_spec(3), _categories(a=30, b=10), names=["b", "x", "a"]) == {0: 10, 2: 30}
    named = _spec(2, {0: "cat", 1: "dog"})
    assert match_labels(named, _categories(cat=1, dog=2), names=["dog", "cat"]) == {0: 2, 1: 1}
    with pytest.raises(UserError, match=r"--labels names 2 labels, .* has 3"):
        match_labels(_spec(3), _categories(a=1), names=["a", "b"])


def test_what_the_user_maps_counts_before_all_else() -> None:
    named = _spec(3, {0: "cat", 1: "dog", 2: "cow"})
    assert match_labels(named, _categories(cat=1, dog=2), chosen={1: 1, 2: 0}) == {0: 2, 1: 1}
    assert match_labels(named, _categories(kitten=1, dog=2), chosen={1: 0}) == {0: 1, 1: 2}
    assert match_labels(_spec(3), _categories(a=1, b=2), chosen={1: 2, 2: 0}) == {0: 2, 2: 1}


def test_a_category_that_no_annotation_uses_needs_no_label() -> None:
    named = _spec(2, {0: "cat", 1: "dog"})
    root = [{"id": 0, "name": "animals"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert match_labels(named, root, used={1, 2}) == {0: 1, 1: 2}
    assert match_labels(named, _categories(cat=1, dog=2), used={1}) == {0: 1, 1: 2}  # known all the same
    with pytest.raises(UserError, match=r"no label for 1 .*animals"):
        match_labels(named, root, used={0, 1})


def test_without_any_annotation_every_label_has_its_category() -> None:
    """As in COCO's test-dev, whose file lists images and categories alone."""
    named = _spec(2, {0: "cat", 1: "dog"})
    assert match_labels(named, _categories(dog=1, cat=2, cow=3), used=()) == {0: 2, 1: 1}
    assert match_labels(_spec(91), _categories(person=1, car=3), used=()) == {1: 1, 3: 3}
    assert match_labels(named, _categories(kitten=1, dog=2), used=(), chosen={1: 0, 2: 1}) == {0: 1, 1: 2}
    with pytest.raises(UserError, match="labels without names, which could stand for any of the categories cat, dog"):
        match_labels(_spec(2), _categories(cat=1, dog=2), used=())
    with pytest.raises(UserError, match="no label for 2 of the data set's 2 categories: car, bus"):
        match_labels(named, _categories(car=1, bus=2), used=())


def test_two_used_categories_of_one_name_must_be_told_apart() -> None:
    named = _spec(2, {0: "cat", 1: "dog"})
    twice = [{"id": 0, "name": "cat"}, {"id": 1, "name": "cat"}]
    assert match_labels(named, twice, used={1}) == {0: 1}
    with pytest.raises(
        UserError, match=r"categories 0 and 1 are both named cat: map them .* --map 0=LABEL --map 1=LABEL"
    ):
        match_labels(named, twice, used={0, 1})


def test_91_nameless_columns_are_category_ids_where_the_data_set_is_numbered_as_coco() -> None:
    assert match_labels(_spec(91), _categories(person=1, dog=18)) == {1: 1, 18: 18}
    with pytest.raises(UserError, match=r"91 labels without names.*screw, nut"):
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
