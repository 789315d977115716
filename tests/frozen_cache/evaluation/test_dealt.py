"""Two processes share an evaluation: the first gets what one alone would have, an error ends both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from frozen_cache.evaluation.dealt import dealt

TWO = """
import json, os, sys
from pathlib import Path
from torch import distributed
from frozen_cache.errors import NotFiniteError
from frozen_cache.evaluation import dealt as module
module.CHUNK = 2
distributed.init_process_group("gloo")
rank = distributed.get_rank()
seen = []
def work(places, broken=None):
    for place in places:
        seen.append(place)
        if place == broken:
            raise NotFiniteError("image 5")
        yield place * 10
whole = [list(module.dealt(work, range(count), share=(rank, 2))) for count in (0, 1, 7, 8)]
own, seen = seen, []
try:
    list(module.dealt(lambda places: work(places, broken=5), range(8), share=(rank, 2)))
    said = ""
except NotFiniteError as error:
    said = f"{error.exit_code} {error}"
Path(sys.argv[1], f"{rank}.json").write_text(json.dumps([whole, own, said]))
distributed.barrier()
distributed.destroy_process_group()
"""


def test_alone_it_is_the_work_itself() -> None:
    assert list(dealt(lambda places: (place + 1 for place in places), [3, 1], share=(0, 1))) == [4, 2]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[list]:
    """What each process has seen."""
    folder = tmp_path_factory.mktemp("dealt")
    (folder / "two.py").write_text(TWO)
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(folder / "two.py"), str(folder)]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in (0, 1)]


def test_the_first_gets_everything_in_order_and_each_works_on_its_own(told: list[list]) -> None:
    (whole, own, _), (nothing, other, _) = told
    assert whole == [[place * 10 for place in range(count)] for count in (0, 1, 7, 8)]
    assert nothing == [[], [], [], []]
    assert own == [0, 0, 1, 4, 5, 0, 1, 4, 5] and other == [2, 3, 6, 2, 3, 6, 7]


def test_an_error_of_one_ends_both_with_its_own_code(told: list[list]) -> None:
    assert [said for *_, said in told] == ["3 image 5", "3 image 5"]
