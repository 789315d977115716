"""The list of sabotages cannot rot in silence."""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.mutants import Fate, Outcome, Sabotage, _write_area, load_sabotages

ROOT = Path(__file__).parents[2]
SABOTAGES = load_sabotages()


@pytest.mark.parametrize("area", sorted({each.area for each in SABOTAGES}))
def test_every_sabotage_fits_the_code_as_it_stands(area: str) -> None:
    mine = [each for each in SABOTAGES if each.area == area]
    assert [f"{each.what}: {why}" for each in mine if (why := each.stale(ROOT))] == []


def test_every_sabotage_is_python_and_named_once() -> None:
    for each in SABOTAGES:
        assert each.old != each.new, each.what
        ast.parse((ROOT / each.file).read_text().replace(each.old, each.new), each.what)
    assert [what for what, count in Counter(each.what for each in SABOTAGES).items() if count > 1] == []


def test_there_are_enough_of_them_in_every_area() -> None:
    areas = Counter(each.area for each in SABOTAGES)
    assert areas.total() >= 150
    assert {"head", "training", "matching", "evaluation", "data", "cache", "detectors"} <= set(areas)


def test_a_text_that_is_not_there_once_is_stale(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\nx = 1\ny = 2\n")
    for old, says in (("x = 1", "2 times"), ("z", "0 times"), ("y = 2", "t.py is gone")):
        found = Sabotage(area="a", what="w", file="a.py", old=old, new="", tests=("t.py",)).stale(tmp_path)
        assert found is not None and says in found
    (tmp_path / "t.py").touch()
    assert Sabotage(area="a", what="w", file="a.py", old="y", new="", tests=("t.py",)).stale(tmp_path) is None
    assert Sabotage(area="a", what="w", file="b.py", old="y", new="", tests=()).stale(tmp_path) == "b.py is gone"


def test_a_run_of_one_area_leaves_the_results_of_the_others(tmp_path: Path) -> None:
    def outcomes(area: str, *fates: Fate) -> list[Outcome]:
        sabotage = Sabotage(area=area, what="w", file="a.py", old="x", new="y", tests=(), survives="no harm")
        return [Outcome(sabotage, fate, 1.0) for fate in fates]

    path = tmp_path / "result.json"
    _write_area(path, "a", outcomes("a", Fate.KILLED, Fate.KILLED, Fate.SURVIVED), {"commit": "c"})
    _write_area(path, "b", outcomes("b", Fate.SURVIVED), {"commit": "c"})
    _write_area(path, "b", outcomes("b", Fate.TIMED_OUT, Fate.KILLED), {"commit": "c"})
    found = json.loads(path.read_text())
    counts = {area: [each[name] for name in ("run", "killed", "timed_out")] for area, each in found["areas"].items()}
    assert counts == {"a": [3, 2, 0], "b": [2, 1, 1]}
    assert found["all"]["run"] == 5 and found["all"]["share_killed"] == 0.6
    assert found["areas"]["a"]["not_killed"] == [{"what": "w", "fate": "survived", "why": "no harm"}]
