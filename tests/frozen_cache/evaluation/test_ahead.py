"""Work in threads: in order, a few at a time, each with its part of PyTorch's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from frozen_cache.errors import NotFiniteError
from frozen_cache.evaluation.ahead import MOST_THREADS, ahead, chosen_threads


@pytest.fixture
def four() -> Iterator[None]:
    """As on a machine of four cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four")
def test_a_thread_for_each_of_pytorch_s_where_a_model_is_on_the_cpu() -> None:
    assert chosen_threads(torch.device("cpu")) == 4
    assert chosen_threads(torch.device("cuda")) == chosen_threads(None) == 1
    torch.set_num_threads(4 * MOST_THREADS)
    assert chosen_threads(torch.device("cpu")) == MOST_THREADS


def test_one_thread_is_the_caller_s() -> None:
    assert list(ahead(lambda place: (place, threading.get_ident()), [1, 2], threads=1)) == [
        (1, threading.get_ident()),
        (2, threading.get_ident()),
    ]


@pytest.mark.usefixtures("four")
def test_results_come_in_order_few_wait_and_the_threads_share_pytorch_s() -> None:
    begun, meet = [], threading.Barrier(2, timeout=20)

    def work(place: int) -> tuple[int, int, int]:
        begun.append(place)
        if place < 2:
            meet.wait()  # for each other: they run at once
        time.sleep(0.05 * (place % 2 == 0))
        return place, torch.get_num_threads(), threading.get_ident()

    found, most = [], 0
    for each in ahead(work, range(10), threads=2):
        found.append(each)
        time.sleep(0.03)
        most = max(most, len(begun) - len(found))
    assert [place for place, *_ in found] == list(range(10))
    assert {threads for _, threads, _ in found} == {2}
    assert threading.get_ident() not in {thread for *_, thread in found}
    assert most <= 3
    assert torch.get_num_threads() == 4
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 4  # of a thread that begins afterwards
    assert list(ahead(lambda _: torch.get_num_threads(), [0], threads=8)) == [1]


def test_an_error_is_raised_in_its_place_and_the_rest_is_left() -> None:
    begun: list[int] = []

    def work(place: int) -> int:
        begun.append(place)
        if place == 2:
            raise NotFiniteError("image 2")
        return place

    found: list[int] = []
    with pytest.raises(NotFiniteError, match="image 2"):
        found.extend(each for each in ahead(work, range(100), threads=2))
    found.clear()
    for each in ahead(work, range(10, 100), threads=2):
        found.append(each)
        if each == 12:
            break
    assert found == [10, 11, 12]
    assert max(begun) <= 16


def test_what_waits_for_a_thread_is_left_when_nobody_asks_for_more() -> None:
    begun: list[int] = []

    def work(place: int) -> int:
        begun.append(place)
        time.sleep(0.5 * (place > 0))
        return place

    results = ahead(work, range(100), threads=2)
    assert next(results) == 0
    results.close()  # 1 and 2 are taken by the threads first
    assert 3 not in begun
