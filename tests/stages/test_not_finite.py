"""No file of results ever holds a NaN or an infinity: each writer refuses, naming the file."""

from __future__ import annotations

import json
import math
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from frozen_cache.cli.main import exit_code
from frozen_cache.errors import NotFiniteError
from frozen_cache.inference.instances import Instances
from frozen_cache.stages import ablate as ablate_stage
from frozen_cache.stages import evaluate as evaluate_stage
from frozen_cache.stages.predict import predict
from frozen_cache.stages.predict_request import check_request
from frozen_cache.training.run_directory import RunDirectory

BAD = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize(("factor", "said"), [(math.nan, "best.safetensors is worthless"), (1e30, "mask logits")])
def test_a_head_of_worthless_weights_or_predictions_ends_with_3_and_writes_nothing(
    scene_cache, scene_run, tmp_path, capsys, factor, said
):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(scene_run / "run.json", run)
    with safe_open(scene_run / "best.safetensors", "pt") as file:
        metadata = {"run": file.metadata()["run"]}
    tensors = {name: value * factor for name, value in load_file(scene_run / "best.safetensors").items()}
    save_file(tensors, run / "best.safetensors", metadata=metadata)
    out = tmp_path / "results"
    assert exit_code(["evaluate", "--cache", str(scene_cache), "--head", str(run), "--out", str(out)]) == 3
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize("bad", BAD)
def test_metrics_that_are_not_finite_are_not_written(scene_cache, tmp_path, monkeypatch, bad):
    original = evaluate_stage.summary

    def summary(*arguments: Any, **options: Any) -> dict[str, Any]:
        found = original(*arguments, **options)
        return found | {"segm": found["segm"] | {"AP75": bad}}

    monkeypatch.setattr(evaluate_stage, "summary", summary)
    with pytest.raises(NotFiniteError, match=r"metrics\.json is not written, as `segm\.AP75`"):
        evaluate_stage.evaluate(cache=scene_cache, baseline="box", out=tmp_path / "out")
    assert not list(tmp_path.rglob("*.json"))


def test_a_submission_with_a_score_that_is_not_finite_is_not_written(scene_cache, tmp_path, monkeypatch):
    results = [{"score": 0.5, "bbox": [0, 0, 1, 1]}, {"score": math.nan, "bbox": [0, 0, 1, 1]}]
    monkeypatch.setattr(Instances, "to_coco", lambda *a, **k: results)
    with pytest.raises(NotFiniteError, match=r"part of segm_results\.json is not written, as `1\.score`"):
        evaluate_stage.write_submission(cache=scene_cache, out=tmp_path / "out", name="mine", head=None, baseline="box")
    assert not list(tmp_path.rglob("*.zip"))


def test_an_ablation_s_row_that_is_not_finite_is_not_written(scene_cache, scene_run, tmp_path, monkeypatch):
    def evaluated(*, out, **options):
        out.mkdir(parents=True)
        metrics = json.loads((scene_run / "metrics.jsonl").read_text().splitlines()[-1])["val"]
        (out / "metrics.json").write_text(
            json.dumps(metrics | {"segm": metrics["segm"] | {"AP": math.nan}, "classes": []})
        )

    def trained(*, out, **options):
        out.mkdir(parents=True)
        shutil.copy(scene_run / "run.json", out)
        return SimpleNamespace(seconds=1.0)

    monkeypatch.setattr(ablate_stage, "evaluate", evaluated)
    monkeypatch.setattr(ablate_stage, "train_head", trained)
    (tmp_path / "grid.toml").write_text("title = 't'\n[[rows]]\nname = 'a'\n")
    out = tmp_path / "out"
    with pytest.raises(NotFiniteError, match=r"table\.csv is not written, as `0\.AP`"):
        ablate_stage.ablate(cache=scene_cache, val_cache=scene_cache, grid=str(tmp_path / "grid.toml"), out=out)
    assert not [path for path in out.iterdir() if path.name.startswith(("table", "plot", "report"))]


def test_predictions_that_are_not_finite_are_not_written(scenes, scene_run, tmp_path, monkeypatch):
    monkeypatch.setattr(Instances, "to_coco", lambda *a, **k: [{"score": math.nan}])
    request = check_request(inputs=[str(scenes / "images")], out=tmp_path / "out", save=())
    with pytest.raises(NotFiniteError, match=r"segm_results\.json is not written, as `0\.score`"):
        predict(request, model=scene_run, device="cpu")
    assert not list(tmp_path.rglob("*_results.json"))


@pytest.mark.parametrize("bad", BAD)
def test_a_metrics_line_that_is_not_finite_is_not_written(tmp_path, bad):
    run = RunDirectory(tmp_path)
    run.log({"step": 1, "loss": 0.5})
    with pytest.raises(NotFiniteError, match=r"metrics\.jsonl is not written, as `val\.segm\.AP`"):
        run.log({"step": 2, "val": {"segm": {"AP": bad}}})
    assert run.metrics() == [{"step": 1, "loss": 0.5}]


def test_a_value_of_another_kind_is_no_such_error(tmp_path):
    with pytest.raises(TypeError):
        RunDirectory(tmp_path).log({"step": torch.ones(1)})
