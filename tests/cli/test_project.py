"""The project file: what `init` writes, `--config` and `run` take; mistakes in it are named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from frozen_cache.cli.invoke import invoke
from frozen_cache.cli.main import app, exit_code
from frozen_cache.cli.project import read_project
from frozen_cache.errors import UserError
from frozen_cache.stages.init import find_splits, init_project

COMMANDS = typer.main.get_command(app).commands


def coco_folder(root: Path) -> None:
    """Two splits of one image each, and a saved model's configuration."""
    for split in ("train2017", "val2017"):
        (root / split).mkdir(parents=True)
        Image.new("RGB", (8, 6)).save(root / split / f"{split}.png")
        content = {
            "images": [{"id": 1, "file_name": f"{split}.png", "height": 6, "width": 8}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "segmentation": [[0, 0, 4, 0, 4, 4]]}],
            "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "unused"}],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    (root / "model").mkdir()
    (root / "model" / "config.json").write_text('{"model_type": "d_fine"}')


def test_init_finds_splits_images_and_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "disk").mkdir()
    coco_folder(tmp_path / "disk")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "data").symlink_to(tmp_path / "disk")  # data sets are often links
    assert exit_code(["init", str(tmp_path / "project")]) == 0
    assert "train: " in capsys.readouterr().out
    project = read_project(tmp_path / "project" / "frozen-cache.toml", COMMANDS)
    data = tmp_path / "project" / "data"
    assert project["extract-features"] == [
        {
            "detector": f"hf:{data / 'model'}",
            "images": str(data / split),
            "annotations": str(data / "annotations" / f"instances_{split}.json"),
            "out": str(tmp_path / "project" / "caches" / f"{name}.zarr"),
        }
        for split, name in (("train2017", "train"), ("val2017", "val"))
    ]
    assert project["train-head"][0]["val_cache"] == str(tmp_path / "project" / "caches" / "val.zarr")
    assert project["train-head"][0]["preset"] == "small-data"
    text = (tmp_path / "project" / "frozen-cache.toml").read_text()
    assert "1 images, 1 objects: cat" in text and "unused" not in text
    assert exit_code(["init", str(tmp_path / "project")]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "places",
    [
        {"annotations/instances_train2017.json": "train2017", "annotations/instances_val2017.json": "val2017"},
        {"train.json": "images/train", "val.json": "images/val"},
        {"train/_annotations.coco.json": "train", "valid/_annotations.coco.json": "valid"},
        {"data/train/annotations.json": "data/train/images", "data/val/annotations.json": "data/val/images"},
        {"train/labels.json": "train/data", "validation/labels.json": "validation/data"},
        {"a_train.json": "some", "b_val.json": "more"},
    ],
)
def test_init_tells_folders_with_files_of_the_same_names_apart(places: dict[str, str], tmp_path: Path) -> None:
    for count, (file, images) in enumerate(places.items(), 2):
        content: dict[str, list[Any]] = {"images": [], "annotations": [{"category_id": 1}], "categories": [{"id": 1}]}
        for number in range(count):
            content["images"].append({"id": number, "file_name": f"{number}.png"})
            (tmp_path / images).mkdir(parents=True, exist_ok=True)
            (tmp_path / images / f"{number}.png").touch()
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(json.dumps(content))
    found = {split.annotations.relative_to(tmp_path).as_posix(): split.images for split in find_splits(tmp_path)}
    places.pop("a_train.json", None)  # nothing tells these apart but that `more` has more of the images
    assert {name: found[name] for name in places} == {name: tmp_path / images for name, images in places.items()}


def test_of_two_inits_at_once_the_second_leaves_the_file_of_the_first(tmp_path: Path, monkeypatch) -> None:
    coco_folder(tmp_path)
    file = tmp_path / "frozen-cache.toml"

    def find(folder: Path) -> list[Any]:
        file.write_text("# by hand, meanwhile")
        return find_splits(folder)

    monkeypatch.setattr("frozen_cache.stages.init.find_splits", find)
    with pytest.raises(UserError, match="is there already"):
        init_project(folder=tmp_path, out=file)
    assert file.read_text() == "# by hand, meanwhile"
    init_project(folder=tmp_path, out=file, force=True)
    assert "[train-head]" in file.read_text()


def test_init_needs_no_torch(tmp_path: Path) -> None:
    coco_folder(tmp_path)
    look = "import sys; from frozen_cache.cli.main import exit_code as run; code = run(sys.argv[1:])"
    command = [sys.executable, "-c", f"{look}; sys.exit(code or 'torch' in sys.modules)", "init", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "detector: hf:model" in done.stdout


LOADERS = {
    "load.py": "def load(folder='.'): return None\ndef detector(): return load(), 1\nraise SystemExit('was run')\n",
    "usual.py": "def detector(): return make()\n",
    "late.py": "def pair(folder='.', *, device='cpu'):\n    if folder:\n        return 1, 2\n",
}
NO_LOADERS = {
    "broken.py": "def detector(:\n",
    "needs.py": "def detector(weights): return 1, 2\ndef pair(*, size): return 1, 2\n",
    "private.py": "def _pair(): return 1, 2\ndef three(): return 1, 2, 3\nclass A:\n    def detector(): return 1, 2\n",
    "inner.py": "def outer():\n    def inner(): return 1, 2\n    return inner\n",
    "late.txt": "def detector(): return 1, 2\n",
}


@pytest.mark.parametrize("name", [*LOADERS, *NO_LOADERS])
def test_init_proposes_the_loader_beside_a_model_and_does_not_run_it(name: str, tmp_path: Path, monkeypatch) -> None:
    coco_folder(tmp_path)
    (tmp_path / "model" / name).write_text((LOADERS | NO_LOADERS)[name])
    assert exit_code(["init", str(tmp_path)]) == 0
    monkeypatch.chdir("/")
    project = read_project(tmp_path / "frozen-cache.toml", COMMANDS)
    factory = {"load.py": "detector", "usual.py": "detector", "late.py": "pair"}.get(name)
    proposed = f"{tmp_path / 'model' / name}:{factory}" if factory else f"hf:{tmp_path / 'model'}"
    assert project["extract-features"][0]["detector"] == proposed


def test_init_says_how_to_go_on_where_there_is_no_coco_file(tmp_path: Path, capsys) -> None:
    assert exit_code(["init", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no known format" in said and "`frozen-cache convert --format`" in said  # init has no such option
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    assert exit_code(["init", str(tmp_path)]) == 2
    assert f"frozen-cache convert {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[extract-featurs]\n", "no command `extract-featurs`: did you mean `extract-features`"),
        ("[train-head]\npresett = 'paper'\n", "no option `presett`: did you mean `preset`"),
        ("[train-head.more]\nval_cach = 'a'\n", "did you mean `val_cache`"),
        ("train-head = 3\n", "is to be a table"),
        ("[cache.inform]\n", "no command `inform`: did you mean `info`"),
        ("[train-head\n", "not TOML"),
        ("[train-head]\npreset = ''\n", r"\[train-head\]: `preset` is empty"),
        ("[train-head]\nout = 'a\\u0000b'\n".replace("'", '"'), "`out` is empty, or holds a character of no text"),
        ("[extract-features]\nonly = []\n", "`only` is empty"),
        ("[extract-features]\nonly = ['cat', ' ']\n", "`only` is empty"),
    ],
)
def test_a_mistake_in_the_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        read_project(file, COMMANDS)


def test_keys_are_options_with_dashes_or_underscores_and_lists_have_commas(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(
        "[extract-features]\nbackbone-strides = [8, 16]\nskip_missing = true\nout = '/a/x.zarr'\n"
        "[train-head]\nset = ['head.width=64', 'seed=1']\n[cache.repair]\nimages = 'pictures'\n"
    )
    project = read_project(file, COMMANDS)
    assert project["extract-features"] == [{"backbone_strides": "8,16", "skip_missing": True, "out": "/a/x.zarr"}]
    assert project["train-head"] == [{"set_": ["head.width=64", "seed=1"]}]
    assert project["cache"] == [{"repair": {"images": str(tmp_path / "pictures")}}]


def test_the_file_gives_what_the_line_does_not(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.toml").write_text("[evaluate]\ncache = 'there.zarr'\nhead = 'run'\nout = 'results'\n")
    assert exit_code(["evaluate", "--config", "p.toml", "--cache", "here.zarr"]) == 2
    assert "here.zarr" in capsys.readouterr().err
    assert exit_code(["--config=p.toml", "evaluate"]) == 2
    assert "there.zarr" in capsys.readouterr().err
    assert exit_code(["run", "p.toml"]) == 2
    assert "there.zarr" in capsys.readouterr().err
    assert exit_code(["run"]) == 2
    assert "frozen-cache.toml: there is no such file" in capsys.readouterr().err
    assert exit_code(["evaluate", "--config"]) == 2
    assert "name the project file" in capsys.readouterr().err


def test_a_table_of_parts_runs_once_for_each(tmp_path: Path) -> None:
    called = []

    class Group:
        commands = COMMANDS

        def __call__(self, arguments: list[str], *, standalone_mode: bool, default_map: dict) -> None:
            called.append(default_map["evaluate"])

    file = tmp_path / "p.toml"
    file.write_text("[evaluate]\nbaseline = 'box'\n[evaluate.a]\ndevice = 'cpu'\n[evaluate.b]\ndevice = 'cuda'\n")
    invoke(Group(), ["evaluate"], config=file)
    assert called == [{"baseline": "box", "device": "cpu"}, {"baseline": "box", "device": "cuda"}]
    with pytest.raises(UserError, match="2 parts, each with an --out of its own"):
        invoke(Group(), ["evaluate", "--out", "c"], config=file)


def test_options_that_may_be_repeated_take_one_value_or_a_list(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(
        '[evaluate]\nhead = "run"\ncompare = ["a", "b.json"]\n[predict]\nsave = "masks"\n[train-head]\nset = ["a=1"]\n'
    )
    project = read_project(tmp_path / "p.toml", COMMANDS)
    head, both = [str(tmp_path / "run")], [str(tmp_path / "a"), str(tmp_path / "b.json")]
    assert project["evaluate"] == [{"head": head, "compare": both}]
    assert project["predict"] == [{"save": ["masks"]}]
    assert project["train-head"] == [{"set_": ["a=1"]}]
