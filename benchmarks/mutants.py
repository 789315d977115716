"""Do the tests notice when the numbers go wrong? Small sabotages of the code, and the tests that must turn red.

    python benchmarks/mutants.py [--area AREA ...] [--only WORDS] [--workers N]

`benchmarks/mutants/AREA.toml` lists the sabotages: a file, an exact piece of it, what stands there instead, and the
test files that must notice. Each is put into a copy of the checkout in a temporary folder, never into the checkout
itself; the named tests run there until the first red one. A sabotage whose old text is not in its file just once is
stale: nothing is run, the exit code is 2. Those that no test notices must say why (`survives`); the exit code is 1
where one does not, or where a test is red without any sabotage. An area that was run as a whole (no `--only`) takes
its place in benchmarks/mutants.json; the other areas there stay as they were.

Everything but this package is imported once; each sabotage runs in a fork of that process (Linux, macOS).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import types
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from queue import Queue
from typing import Any

ROOT = Path(__file__).parents[1]
LISTS = Path(__file__).with_suffix("")
RESULT = Path(__file__).with_suffix(".json")
COPIED = ("frozen_cache", "stages", "cli", "tests", "benchmarks", "pyproject.toml")
HEAVY = (
    "torch", "torch.utils.tensorboard", "torchvision", "transformers", "timm", "accelerate", "zarr", "scipy.optimize",
    "matplotlib.figure", "pycocotools.cocoeval", "hypothesis", "pytest", "typer", "pydantic",
    "transformers.models.deformable_detr.modeling_deformable_detr",
)  # fmt: skip
"""Imported before the forks; none of it may start a thread."""
LIMIT = 100
"""Seconds until a sabotage that makes its tests hang is given up; it counts as timed out, not as killed."""


@dataclass(frozen=True)
class Sabotage:
    """One way to break the code."""

    area: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str | None = None
    """Why no test can or need notice it."""

    def stale(self, root: Path) -> str | None:
        """What is wrong with it as the code stands; None where it can be put in."""
        path = root / self.file
        if not path.is_file():
            return f"{self.file} is gone"
        found = path.read_text().count(self.old)
        if found != 1:
            return f"{self.file} has its old text {found} times: {self.old.strip().splitlines()[0]}"
        missing = [name for name in self.tests if not (root / name).exists()]
        return f"{missing[0]} is gone" if missing else None


class Fate(StrEnum):
    """What became of a sabotage."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"


@dataclass(frozen=True)
class Outcome:
    """What the tests said to a sabotage."""

    sabotage: Sabotage
    fate: Fate
    seconds: float


def load_sabotages(folder: Path = LISTS) -> list[Sabotage]:
    """All of them, by area."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["sabotage"]:
            found.append(Sabotage(area=path.stem, **entry | {"tests": tuple(entry["tests"])}))
    return found


def main() -> int:
    """Run what is asked for, print it, and write the result of whole areas."""
    options = _options()
    everything = load_sabotages()
    chosen = [each for each in everything if _is_chosen(each, options)]
    stale = [f"stale: {each.area}: {each.what}: {why}" for each in chosen if (why := each.stale(ROOT))]
    if stale:
        print("\n".join(stale))
        return 2
    for name in HEAVY:
        importlib.import_module(name)
    started = time.perf_counter()
    commit = _commit()
    with _copies(options.workers) as copies:
        red = [] if options.trust else _red_without_sabotage(copies, chosen)
        if red:
            print("\n".join(f"red without any sabotage: {name}" for name in red))
            return 1
        outcomes = []
        for area in sorted({sabotage.area for sabotage in chosen}):
            begun = time.perf_counter()
            of_area = list(_outcomes(copies, [each for each in chosen if each.area == area], options.workers))
            outcomes += of_area
            if options.only is None:
                _write_area(RESULT, area, of_area, _conditions(commit, time.perf_counter() - begun))
    _print_table(outcomes, time.perf_counter() - started)
    return int(any(each.fate is not Fate.KILLED and each.sabotage.survives is None for each in outcomes))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--area", nargs="+", help="head, training ...; all where not given")
    parser.add_argument("--only", help="those whose file or description has these words")
    parser.add_argument("--workers", type=int, default=1, help="sabotages at once, each a process of one thread")
    parser.add_argument("--trust", action="store_true", help="do not first run the tests without sabotage")
    return parser.parse_args()


def _is_chosen(sabotage: Sabotage, options: argparse.Namespace) -> bool:
    words = options.only is None or options.only in sabotage.what or options.only in sabotage.file
    return words and (options.area is None or sabotage.area in options.area)


@contextmanager
def _copies(count: int) -> Iterator[Queue[Path]]:
    """Copies of the checkout, one for each worker."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: Queue[Path] = Queue()
        for number in range(count):
            copy = Path(folder) / str(number) / "checkout"
            copy.mkdir(parents=True)
            for name in COPIED:
                _copy(ROOT / name, copy / name)
            copies.put(copy)
        yield copies


def _copy(source: Path, target: Path) -> None:
    if source.is_file():
        shutil.copy2(source, target)
    elif source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))


def _red_without_sabotage(copies: Queue[Path], chosen: list[Sabotage]) -> list[str]:
    """Test files that do not pass as the code stands: with these nothing would be shown."""
    copy = copies.get()
    names = sorted({name for sabotage in chosen for name in sabotage.tests})
    found = [name for name in names if _fate(copy, (name,)) is not Fate.SURVIVED]
    copies.put(copy)
    return found


def _outcomes(copies: Queue[Path], chosen: list[Sabotage], workers: int) -> Iterator[Outcome]:
    def run(sabotage: Sabotage) -> Outcome:
        copy = copies.get()
        path = copy / sabotage.file
        text = path.read_text()
        started = time.perf_counter()
        try:
            path.write_text(text.replace(sabotage.old, sabotage.new))
            fate = _fate(copy, sabotage.tests)
        finally:
            path.write_text(text)
            copies.put(copy)
        return Outcome(sabotage, fate, time.perf_counter() - started)

    with ThreadPoolExecutor(workers) as pool:
        for outcome in pool.map(run, chosen):
            sabotage = outcome.sabotage
            print(f"{outcome.fate:9} {outcome.seconds:6.1f} s  {sabotage.area}: {sabotage.what}", flush=True)
            yield outcome


def _fate(copy: Path, tests: tuple[str, ...]) -> Fate:
    """What the tests say to a copy, in a process forked off this one: it survives where all of them pass."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = _run_tests(copy, tests)
        finally:
            os._exit(code)
    deadline = time.monotonic() + LIMIT
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Fate.TIMED_OUT
        time.sleep(0.02)
    return Fate.SURVIVED if os.waitstatus_to_exitcode(done[1]) == 0 else Fate.KILLED


def _run_tests(copy: Path, tests: tuple[str, ...]) -> int:
    import hypothesis
    import pytest
    import torch

    os.setpgid(0, 0)
    os.chdir(copy)
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    torch.set_num_threads(1)
    # Spawned and started processes find the copy too, and none of them this program.
    sys.path[:] = [str(copy), *(place for place in sys.path if Path(place).resolve() not in (ROOT, LISTS.parent))]
    os.environ.update(PYTHONPATH=str(copy), PYTHONDONTWRITEBYTECODE="1")
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.dont_write_bytecode = True
    # The first red example is enough: to make it small, and to explain it, takes minutes.
    hypothesis.settings.register_profile("mutants", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
    hypothesis.settings.load_profile("mutants")
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--tb=no", "--assert=plain", *tests]))


def _print_table(outcomes: list[Outcome], wall: float) -> None:
    print()
    for area, count in Counter(each.sabotage.area for each in outcomes).items():
        print(f"{area:12} {_count(outcomes, Fate.KILLED, area):4} of {count:4} killed")
    print(f"{'all':12} {_count(outcomes, Fate.KILLED):4} of {len(outcomes):4} killed in {wall / 60:.1f} minutes")
    for outcome in outcomes:
        sabotage = outcome.sabotage
        if outcome.fate is not Fate.KILLED:
            print(f"{outcome.fate}: {sabotage.area}: {sabotage.what}: {sabotage.survives or 'nobody has said why'}")
        elif sabotage.survives is not None:
            print(f"killed, though it was said to survive: {sabotage.area}: {sabotage.what}")


def _count(outcomes: list[Outcome], fate: Fate, area: str | None = None) -> int:
    return sum(each.fate is fate and area in (None, each.sabotage.area) for each in outcomes)


def _write_area(path: Path, area: str, outcomes: list[Outcome], conditions: dict[str, Any]) -> None:
    """Put an area's result in the place of its last one, and the sums over all areas behind it."""
    areas = json.loads(path.read_text())["areas"] if path.is_file() else {}
    areas[area] = {
        "conditions": conditions,
        "run": len(outcomes),
        **{fate.replace(" ", "_"): _count(outcomes, fate) for fate in Fate},
        "not_killed": [
            {"what": each.sabotage.what, "fate": str(each.fate), "why": each.sabotage.survives}
            for each in outcomes
            if each.fate is not Fate.KILLED
        ],
    }
    counts = ("run", *(fate.replace(" ", "_") for fate in Fate))
    sums = {"listed": len(load_sabotages()), **{name: sum(each[name] for each in areas.values()) for name in counts}}
    sums["share_killed"] = round(sums["killed"] / sums["run"], 4)
    path.write_text(json.dumps({"all": sums, "areas": dict(sorted(areas.items()))}, indent=2) + "\n")


def _commit() -> str:
    """The commit that is copied: asked before the run, since the checkout may move on during it."""
    told = subprocess.run(("git", "rev-parse", "--short=12", "HEAD"), cwd=ROOT, capture_output=True, text=True)
    return told.stdout.strip()


def _conditions(commit: str, wall: float) -> dict[str, Any]:
    import torch

    return {
        "commit": commit,
        "date": datetime.now(UTC).date().isoformat(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "minutes": round(wall / 60, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
