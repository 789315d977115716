"""Deaths, I/O errors and damage in any order: no wrong number. `benchmarks/faults.py` is the long form."""

import errno
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

sys.path.insert(0, str(Path(__file__).parent))
from fault_runs import ERRORS, CacheMachine, CodedMachine, RecomputedMachine, calls_of, try_points

sys.path.pop(0)


def some(calls: list[str], *, step: int, first: int = 0) -> list[int]:
    """Every `step`th call, and all around the moves and removals by which a segment comes to count."""
    moves = [at for at, name in enumerate(calls) if name == "rename"]
    near = {at + by for at in moves for by in range(-1, 4)}
    return sorted({*range(first, len(calls), step), *(at for at in near if at < len(calls))})


@pytest.mark.parametrize(
    ("work", "precision", "step"),
    [
        ("extract", "float16", 97),
        ("repair", "float16", 97),
        ("extract", "coded", 397),
        ("extract", "recomputed", 397),
    ],
)
def test_a_death_at_any_change_to_the_disk_leaves_no_wrong_number_and_the_next_run_makes_it_whole(
    work: str, precision: str, step: int
) -> None:
    calls = calls_of(work, precision=precision)
    assert len(calls) > 100
    assert try_points(work, some(calls, step=step), precision=precision) == []


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_an_error_at_any_change_to_the_disk_names_the_place_and_harms_nothing(error: int) -> None:
    first = ERRORS.index(error) * 13
    assert try_points("extract", range(first, len(calls_of("extract")), 131), error=error) == []
    assert try_points("repair", range(first, len(calls_of("repair")), 391), error=error) == []


@pytest.mark.parametrize(("machine", "examples"), [(CacheMachine, 5), (CodedMachine, 3), (RecomputedMachine, 3)])
def test_any_order_of_writing_dying_damage_repair_and_reading_keeps_the_promise(
    machine: type[CacheMachine], examples: int
) -> None:
    short = settings(
        max_examples=examples, stateful_step_count=5, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(machine, settings=short)
