"""An exported folder is a head like its run: for `evaluate`, `visualize`, `cache relabel --masks-from`, `--init`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from frozen_cache.cli.main import exit_code
from frozen_cache.errors import UserError
from frozen_cache.export.read import load_folder
from frozen_cache.stages.cache_relabel import cache_relabel
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.export import export_model
from frozen_cache.stages.train import train_head
from frozen_cache.stages.visualize import visualize


@pytest.fixture(scope="module")
def exported(scene_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model"
    export_model(run=scene_run, out=out)
    return out


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copied"))


def test_evaluate_gives_the_numbers_of_the_run(scene_cache: Path, scene_run: Path, exported: Path, tmp_path: Path):
    (of_run, of_folder, of_file), results = (scene_run, exported, exported / "head.safetensors"), []
    for name, head in (("run", of_run), ("folder", of_folder), ("file", of_file)):
        made = evaluate(cache=scene_cache, out=tmp_path / name, head=head, device="cpu")
        results.append((made.metrics, (tmp_path / name / "segm_results.json").read_bytes()))
    assert results[0] == results[1] == results[2] and len(results[0][1]) > 100
    page = (tmp_path / "folder" / "report.html").read_text()
    assert "head.roi_size" in page and "multiply-adds" in page
    both = evaluate(cache=scene_cache, out=tmp_path / "both", head=[scene_run, exported], device="cpu")
    assert both.what.startswith("mean of 2 heads")


def test_visualize_takes_it(scene_cache: Path, exported: Path, tmp_path: Path):
    assert visualize(cache=scene_cache, out=tmp_path / "out", head=exported, limit=1, device="cpu").pictures > 0


def test_its_masks_are_those_of_the_run_for_relabel(scene_cache: Path, scene_run: Path, exported: Path, tmp_path: Path):
    made = [
        cache_relabel(
            scene_cache,
            out=tmp_path / f"{at}.zarr",
            masks_from=str(head),
            replace_masks=True,
            least_iou=0,
            device="cpu",
        )
        for at, head in enumerate((scene_run, exported))
    ]
    given = [each.masks.given for each in made if each.masks is not None]
    assert given[0] == given[1] > 0


def test_a_training_starts_from_it_and_goes_on(scene_cache: Path, scene_run: Path, exported: Path, tmp_path: Path):
    config = json.loads((scene_run / "run.json").read_text())["config"]["head"]
    small = {f"head.{key}": value for key, value in config.items()} | {"loss.points": 16}
    still = small | {"optim.epochs": 1, "optim.lr": 1e-12}
    out = tmp_path / "run"
    train_head(cache=scene_cache, out=out, overrides=still, init=exported, device="cpu")
    (out / "last.safetensors").unlink()  # killed before its first checkpoint
    train_head(cache=scene_cache, out=out, resume=True, device="cpu")
    begun, given = load_file(out / "last.safetensors"), load_file(exported / "head.safetensors")
    assert all(torch.allclose(begun[f"head.{name}"], value, atol=1e-8) for name, value in given.items())


def test_the_head_of_a_folder_without_its_detector_is_measured(scene_cache: Path, copy: Path, tmp_path: Path):
    shutil.rmtree(copy / "detector")
    evaluate(cache=scene_cache, out=tmp_path / "out", head=copy, device="cpu")
    with pytest.raises(UserError, match="detector is missing"):
        load_folder(copy)


@pytest.mark.parametrize("option", ["--head", "--masks-from", "--init"])
def test_a_changed_head_is_one_line(
    scene_cache: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
):
    content = bytearray((copy / "head.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "head.safetensors").write_bytes(content)
    given = ["--out", str(tmp_path / "out.zarr"), option, str(copy)]
    command = {
        "--head": ["evaluate", "--cache", str(scene_cache)],
        "--masks-from": ["cache", "relabel", str(scene_cache)],
        "--init": ["train-head", "--cache", str(scene_cache)],
    }[option]
    assert exit_code([*command, *given]) == 2
    assert "is not the file that was exported" in capsys.readouterr().err


def test_what_is_no_head_is_said_at_once(scene_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for option, command in (("--head", "evaluate"), ("--head", "visualize"), ("--init", "train-head")):
        for place, said in ((tmp_path / "nowhere", "there is no model"), (tmp_path, "holds neither run.json")):
            out = ["--out", str(tmp_path / "out")]
            assert exit_code([command, "--cache", str(scene_cache), *out, option, str(place)]) == 2
            assert said in capsys.readouterr().err
