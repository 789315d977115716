"""Work in other processes: in order, a few tasks at a time, and a death is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from frozen_cache.errors import FrozenCacheError, NotFiniteError
from frozen_cache.evaluation import spread as module
from frozen_cache.evaluation.spread import chosen_workers, spread


def test_without_workers_it_is_map() -> None:
    assert list(spread(str, range(3), workers=0)) == ["0", "1", "2"]


def test_results_come_in_order_from_other_processes_and_few_tasks_wait() -> None:
    taken = []

    def tasks() -> Iterator[str]:
        for number in range(10):
            taken.append(number)
            yield f"__import__('time').sleep({0.2 * (number % 2 == 0)}) or ({number}, __import__('os').getpid())"

    found, most = [], 0
    for number, process in spread(eval, tasks(), workers=2):
        most = max(most, len(taken) - len(found))
        found.append(number)
        assert process != os.getpid()
    assert found == list(range(10))
    assert most <= 5


def test_an_error_of_a_worker_is_the_caller_s() -> None:
    work = "(_ for _ in ()).throw(__import__('frozen_cache.errors').errors.NotFiniteError('image 3'))"
    with pytest.raises(NotFiniteError, match="image 3"):
        list(spread(eval, ["1", work, "2"], workers=1))


def test_a_worker_that_dies_is_named() -> None:
    with pytest.raises(FrozenCacheError, match=r"a worker process of the evaluation died.*--workers 0"):
        list(spread(eval, ["1", "__import__('os')._exit(9)", "2"], workers=1))


def test_a_program_needs_no_main_guard(tmp_path: Path) -> None:
    """What the user's program does at its top is done once."""
    (tmp_path / "mine.py").write_text("print('once')\nfrom frozen_cache.evaluation.spread import spread\n"
                                      "print(list(spread(str, [1, 2], workers=1)))\n")  # fmt: skip
    said = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout == "once\n['1', '2']\n"


def test_workers_need_no_torch() -> None:
    loaded = "(__import__('frozen_cache.evaluation.outcome'), 'torch' in __import__('sys').modules)[1]"
    assert list(spread(eval, [loaded], workers=1)) == [False]


@pytest.mark.parametrize(
    ("cores", "images", "processes", "workers"), [(2, 99, 1, 0), (2, 100, 1, 1), (1, 5000, 1, 0), (64, 5000, 1, 8),
                                                  (16, 5000, 4, 3), (8, 5000, 8, 0)],
)  # fmt: skip
def test_workers_are_the_cores_that_are_left(
    cores: int, images: int, processes: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.os, "cpu_count", lambda: cores)
    assert chosen_workers(images, processes=processes) == workers
