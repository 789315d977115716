"""Faults in the making and mending of a cache, the long form of tests/frozen_cache/cache/test_faults.py.

    python benchmarks/faults.py [--minutes 5] [--step 1]

A death, and each of ENOSPC, EIO, ESTALE and EACCES, at every `step`th change to the disk; then random orders of
extraction, deaths, errors, damage, repair and two writers. Stops when the time is over; faults.json tells how far.
"""

from __future__ import annotations

import argparse
import errno
import json
import platform
import sys
import time
from itertools import zip_longest
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "frozen_cache" / "cache"))
from fault_runs import ERRORS, WORKS, CacheMachine, calls_of, try_points  # type: ignore[import-not-found]

RESULT = Path(__file__).with_suffix(".json")


def main() -> None:
    """Run, print and keep the result; exit code 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--step", type=int, default=1)
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes * 0.8
    calls = {work: len(calls_of(work)) for work in WORKS}
    kinds = [(work, error) for work in WORKS for error in (None, *ERRORS)]
    plans = [[(*kind, at) for at in range(0, calls[kind[0]], args.step)] for kind in kinds]
    tried = {f"{work} {_word(error)}": 0 for work, error in kinds}
    found: list[str] = []
    for points in zip_longest(*plans):
        for work, error, at in filter(None, points):
            if time.monotonic() < end:
                found += try_points(work, [at], error=error)
                tried[f"{work} {_word(error)}"] += 1
    orders, end = 0, time.monotonic() + 60 * args.minutes * 0.2
    while time.monotonic() < end:
        try:
            run_state_machine_as_test(CacheMachine, settings=_settings())
        except AssertionError as error:
            found.append(f"order: {error}")
            break
        orders += 5
    result = {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "minutes": args.minutes,
        "step": args.step,
        "calls": calls,
        "tried": tried,
        "random_orders_of_up_to_15_steps": orders,
        "found": found,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    raise SystemExit(bool(found))


def _word(error: int | None) -> str:
    return "killed" if error is None else errno.errorcode[error]


def _settings() -> settings:
    return settings(
        max_examples=5, stateful_step_count=15, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


if __name__ == "__main__":
    main()
