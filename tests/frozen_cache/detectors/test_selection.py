"""Selection of the best (query, label) pairs, against a plain sort of all of them."""

from __future__ import annotations

import pytest
import torch

from frozen_cache.detectors.selection import columns_to_keep, select_pairs


def sorted_pairs(scores: torch.Tensor) -> list[tuple[float, int, int]]:
    """(score, query, column) of all pairs, the best first."""
    return sorted(
        ((float(scores[q, c]), q, c) for q in range(len(scores)) for c in range(scores.shape[1])), reverse=True
    )


def found(scores: torch.Tensor, **options: object) -> list[tuple[float, int, int]]:
    pairs = select_pairs(scores, **options)  # type: ignore[arg-type]
    return list(zip(pairs.scores.tolist(), pairs.query_index.tolist(), pairs.column.tolist(), strict=True))


@pytest.fixture
def scores() -> torch.Tensor:
    return torch.rand(7, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("k", [1, 5, 21, 100])
def test_a_query_may_give_several_pairs(scores: torch.Tensor, k: int) -> None:
    assert found(scores, k=k) == sorted_pairs(scores)[:k]
    assert len({query for _, query, _ in found(scores, k=5)}) < 5, "the case shows nothing otherwise"


@pytest.mark.parametrize("k", [3, 7, 100])
def test_of_softmax_families_a_query_gives_its_best_label_alone(scores: torch.Tensor, k: int) -> None:
    best = [(float(row.max()), query, int(row.argmax())) for query, row in enumerate(scores)]
    assert found(scores, k=k, one_label_per_query=True) == sorted(best, reverse=True)[:k]


@pytest.mark.parametrize("one_label", [False, True])
def test_labels_that_the_data_set_does_not_know_take_no_place(scores: torch.Tensor, one_label: bool) -> None:
    columns = torch.tensor([True, False, True])
    expected = [pair for pair in sorted_pairs(scores) if pair[2] != 1]
    if one_label:
        expected = [pair for at, pair in enumerate(expected) if pair[1] not in [q for _, q, _ in expected[:at]]]
    options = {"one_label_per_query": one_label, "columns": columns}
    assert found(scores, k=6, **options) == expected[:6]
    assert found(scores, k=100, **options) == expected


def test_a_score_of_zero_is_a_pair_all_the_same() -> None:
    assert found(torch.tensor([[0.0], [0.5]]), k=5) == [(0.5, 1, 0), (0.0, 0, 0)]


def test_no_known_label_gives_no_pair(scores: torch.Tensor) -> None:
    assert found(scores, k=5, columns=torch.zeros(3, dtype=torch.bool)) == []


def test_columns_are_kept_by_their_label_not_by_their_place() -> None:
    assert columns_to_keep(torch.tensor([4, 1, 9]), {1: 7, 4: 8}).tolist() == [True, True, False]
