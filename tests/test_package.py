"""The package: one import name, imports that point down, and a wheel and an sdist that work elsewhere."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("frozen_cache", "stages", "cli")
"""Lowest first."""
HOSTILE = (
    "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nraise SystemExit('a module of the user ran')\n"
)
EVERY_MODULE = """
import importlib, pkgutil
from pathlib import Path
import frozen_cache
for module in pkgutil.walk_packages(frozen_cache.__path__, "frozen_cache."):
    if not module.name.endswith("__main__"):
        assert Path(importlib.import_module(module.name).__file__).is_relative_to(Path(frozen_cache.__file__).parent)
        print(module.name)
from frozen_cache.detectors.load import load_detector
print(load_detector(f"hf:{Path(frozen_cache.__file__).parent / 'demo/detector'}").spec.family)
"""
DATA = [
    *(
        "presets/best.toml",
        "presets/demo.toml",
        "presets/paper.toml",
        "presets/small-data.toml",
        "presets/grids/table6.toml",
    ),
    *("demo/detector/config.json", "demo/detector/model.safetensors", "demo/detector/preprocessor_config.json"),
]


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Path]:
    """A folder of the user's with modules of our rooms' names, as files and as packages; none may ever run."""
    for room in ("cli", "stages"):
        for file in (tmp_path / f"files/{room}.py", tmp_path / f"packages/{room}/__init__.py"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(HOSTILE)
    yield tmp_path
    assert not list(tmp_path.rglob("ran"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sdist and wheel, the wheel made from the unpacked sdist."""
    folder = tmp_path_factory.mktemp("built")
    checkout = folder / "checkout"
    leave = shutil.ignore_patterns("__pycache__")
    for room in ROOMS:
        shutil.copytree(ROOT / room, checkout / room, symlinks=True, ignore=leave)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, checkout / file)
    _run(
        sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})", at=checkout
    )
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    _run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
        *("--wheel-dir", str(folder), str(unpacked)),
        at=folder,
    )
    return folder


@pytest.fixture(scope="module")
def installed(built: Path) -> Path:
    """The wheel, installed into a folder of its own."""
    (wheel,) = built.glob("*.whl")
    target = built / "target"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target))
    _run(*pip, str(wheel), at=built)
    return target


def test_a_users_cli_and_stages_are_never_imported(hostile: Path, installed: Path) -> None:
    files, packages = hostile / "files", hostile / "packages"
    for code in (ROOT, installed):
        for path, folder in (((files, code), packages), ((packages, code), files)):
            assert "extract-features" in _run(sys.executable, "-m", "frozen_cache", "--help", at=folder, path=path)
    script = str(installed / "bin/frozen-cache")
    assert "hdetr-r50" in _run(sys.executable, script, "detectors", at=files, path=(packages, installed))


def test_every_module_of_the_wheel_is_ours_and_finds_its_data(hostile: Path, installed: Path) -> None:
    """From the user's own folder; the demo's detector loads."""
    out = _run(sys.executable, "-c", EVERY_MODULE, at=hostile / "packages", path=(hostile / "files", installed))
    *names, family = out.split()
    assert {"frozen_cache.cli.main", "frozen_cache.stages.extract", "frozen_cache.head.roi"} <= set(names)
    assert family == "d_fine"


def test_wheel_and_sdist_hold_one_package_with_all_its_files(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    in_wheel = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert {name.split("/")[0] for name in in_wheel} == {"frozen_cache"}
    expected = {f"frozen_cache/{name}" for name in DATA} | {
        path.relative_to(ROOT).as_posix()
        if room == "frozen_cache"
        else f"frozen_cache/{path.relative_to(ROOT).as_posix()}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if path.relative_to(ROOT).parts[:2] not in {("frozen_cache", "cli"), ("frozen_cache", "stages")}
    }
    assert expected <= set(in_wheel)
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    assert set(in_wheel) <= in_sdist


def test_imports_point_down_and_never_go_in_a_circle() -> None:
    modules = {_module_name(path): path for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    imports = {name: _imports(path, modules) - {name} for name, path in modules.items()}
    for name, imported in imports.items():
        up = [other for other in imported if _height(other) > _height(name)]
        assert not up, f"{name} imports {up}"
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' -> '.join(error.args[1])}")


def test_the_dockerfile_asks_for_extras_that_exist_and_for_what_they_need() -> None:
    """No daemon builds it here; its installation ran in an environment of Python 3.12."""
    text = (ROOT / "Dockerfile").read_text()
    extras = re.search(r'"\.\[([a-z,-]+)\]"', text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras and set(extras[1].split(",")) <= set(project["optional-dependencies"])
    assert "gcc" in text, "Triton launches the kernels of the extra gpu by a C file that it compiles"


def _module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] != "frozen_cache":
        parts.insert(0, "frozen_cache")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    assert not {name.split(".")[0] for name in found} & {"cli", "stages"}, f"{path} imports a room by its bare name"
    return found & modules.keys()


def _height(module: str) -> int:
    room = module.split(".")[1] if "." in module else ""
    return {"stages": 1, "cli": 2, "__main__": 3}.get(room, 0)


def _run(*command: str, at: Path, path: tuple[Path, ...] = ()) -> str:
    """The output of a command that must succeed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=at, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
