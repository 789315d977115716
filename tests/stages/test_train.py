"""Training from a small cache of the fake detector: resuming, refusing, what a run leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from frozen_cache.cache.hints import HINTS_FILE
from frozen_cache.errors import NotFiniteError, UserError
from frozen_cache.progress import progress_bar
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head
from frozen_cache.training.run_directory import load_record
from frozen_cache.training.run_readme import write_run_readme

SMALL = {
    "head.width": 16,
    "head.roi_size": 16,
    "head.image_width": 16,
    "head.image_layers": 1,
    "head.box_layers": 1,
    "head.feature_dropout": 0.1,
    "optim.epochs": 3,
    "optim.batch_size": 2,
    "loss.points": 16,
    "checkpoint_every": 2,
}


@pytest.fixture(scope="module")
def cache(fake, tmp_path_factory) -> Path:
    """A cache of seven images, two views each."""
    folder = tmp_path_factory.mktemp("cache")
    images, annotations = fake.write_folder(folder / "data")
    out = folder / "train.zarr"
    extract_features(detector=fake.uneven(), images=images, annotations=annotations, out=out, views=2)
    return out


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory) -> Path:
    """A finished run, evaluated along the way."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train_head(cache=cache, val_cache=cache, out=out, overrides=SMALL)
    return out


def test_what_a_kill_left_while_writing_aside_is_in_nobody_s_way(cache, tmp_path):
    run, results = tmp_path / "run", tmp_path / "results"
    for folder, name in ((run, ".run.json.123"), (results, ".metrics.json.123")):
        folder.mkdir()
        (folder / name).write_text("{")
    train_head(cache=cache, out=run, overrides=SMALL | {"optim.epochs": 0.1}, resume=True)
    assert evaluate(cache=cache, head=run, out=results).metrics["bbox"]


def test_a_run_leaves_configuration_metrics_events_checkpoints_and_plots(whole):
    names = {entry.name for entry in whole.iterdir()}
    assert {"run.json", "metrics.jsonl", "last.safetensors", "best.safetensors", "plots.png", "tensorboard"} <= names
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val" in line] == [7, 14, 21]
    assert list((whole / "tensorboard").iterdir())


def named_in_readme(run: Path) -> set[str]:
    """The files in the README's table, which are all there."""
    rows = [line.split("|")[1] for line in (run / "README.md").read_text().splitlines() if line.startswith("| `")]
    names = {name.strip("/") for row in rows for name in re.findall("`(.*?)`", row)}
    assert all((run / name).exists() for name in names)
    return names


def test_the_readme_names_the_files_that_are_there(whole):
    assert named_in_readme(whole) >= {"best.safetensors", "last.safetensors", "run.json"}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(cache, whole, tmp_path):
    train_head(cache=cache, out=tmp_path / "same", overrides=SMALL)
    train_head(cache=cache, out=tmp_path / "other", overrides=SMALL | {"seed": 1})
    expected, same, other = (
        load_file(run / "last.safetensors") for run in (whole, tmp_path / "same", tmp_path / "other")
    )
    assert all(torch.equal(expected[name], same[name]) for name in expected)
    assert not all(torch.equal(expected[name], other[name]) for name in expected)


def test_the_bar_ends_full_where_the_last_batch_of_an_epoch_is_smaller(cache, tmp_path, monkeypatch):
    bars = []

    def bar(**options):
        bars.append(progress_bar(**options | {"shown": False}))
        updates = bars[-1].update
        bars[-1].seen = options["initial"]
        bars[-1].update = lambda count: (setattr(bars[-1], "seen", bars[-1].seen + count), updates(count))
        return bars[-1]

    monkeypatch.setattr("frozen_cache.training.trainer.progress_bar", bar)
    for epochs, resume in ((2, False), (3, True)):  # 14 views an epoch: 8 and 6
        overrides = SMALL | {"optim.epochs": epochs, "optim.batch_size": 8}
        train_head(cache=cache, out=tmp_path / "run", overrides=overrides, resume=resume)
    assert [(bar.seen, bar.total) for bar in bars] == [(28, 28), (42, 42)]


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_resumed_ends_with_the_same_weights(cache, tmp_path, signal_number):
    overrides = SMALL | {"optim.epochs": 12, "optim.ema_decay": 0.9}
    script = f"""
import torch; torch.set_num_threads({torch.get_num_threads()})
from contextlib import nullcontext
from pathlib import Path
from frozen_cache.stages.train import train_head
from frozen_cache.training.run_directory import load_record
train_head(cache=Path({str(cache)!r}), out=Path({str(tmp_path / "run")!r}), overrides={overrides!r})
"""
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    last = tmp_path / "run" / "last.safetensors"
    while not last.is_file() and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal_number)
    process.wait()
    assert process.returncode != 0, "the run ended before it could be stopped"
    resumed = train_head(cache=cache, out=tmp_path / "run", resume=True)
    train_head(cache=cache, out=tmp_path / "uninterrupted", overrides=overrides)
    assert resumed.steps == 84
    one, other = load_file(last), load_file(tmp_path / "uninterrupted" / "last.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_a_finished_run_resumed_changes_nothing(cache, whole):
    before = (whole / "last.safetensors").read_bytes()
    assert train_head(cache=cache, val_cache=cache, out=whole, resume=True).steps == 21
    assert (whole / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize("died_in", ["plot_run", "run_page", "write_page", "write_run_readme"])
def test_a_run_that_died_after_its_last_step_is_ended_by_the_same_command(cache, tmp_path, monkeypatch, died_in):
    options = {"cache": cache, "val_cache": cache, "out": tmp_path / "run"}

    def train(epochs: float, **more: bool) -> None:
        train_head(**options, overrides=SMALL | {"optim.epochs": epochs}, **more)

    def die(*arguments, **named):
        if named.get("whole", True):
            raise SystemExit
        write_run_readme(*arguments, **named)

    for epochs, resume in ((1, False), (2, True)):  # begun, then prolonged: an earlier report lies there
        with monkeypatch.context() as patch:
            patch.setattr(f"frozen_cache.stages.train.{died_in}", die)
            with pytest.raises(SystemExit):
                train(epochs, resume=resume)
        assert "not finished" in (tmp_path / "run" / "README.md").read_text()
        weights = (tmp_path / "run" / "last.safetensors").read_bytes()
        train(epochs)
        assert (tmp_path / "run" / "last.safetensors").read_bytes() == weights
        assert f"{7 * epochs} of {7 * epochs} steps: finished" in (tmp_path / "run" / "README.md").read_text()
        named_in_readme(tmp_path / "run")
        with pytest.raises(UserError, match="finished"):
            train(epochs)


@pytest.mark.parametrize("readme", [None, "My best head so far.\n", "not finished; the same command goes on with it"])
def test_what_people_write_into_the_readme_does_not_decide_whether_a_run_is_finished(
    cache, tmp_path, monkeypatch, readme
):
    options = {"cache": cache, "out": tmp_path / "run", "overrides": SMALL | {"optim.epochs": 0.2}}

    def edit() -> None:
        file = tmp_path / "run" / "README.md"
        file.unlink() if readme is None else file.write_text(readme)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("frozen_cache.stages.train.plot_run", lambda run: sys.exit())
        train_head(**options)
    edit()
    train_head(**options)
    assert (tmp_path / "run" / "report.html").is_file()
    assert "finished" in (tmp_path / "run" / "README.md").read_text()
    edit()
    with pytest.raises(UserError, match="holds this run, finished"):
        train_head(**options)


@pytest.mark.parametrize("died", [True, False])
def test_the_readme_of_a_run_of_an_earlier_version_tells_whether_it_is_finished(cache, tmp_path, monkeypatch, died):
    options = {"cache": cache, "out": tmp_path / "run", "overrides": SMALL | {"optim.epochs": 0.2}}
    with monkeypatch.context() as patch, pytest.raises(SystemExit) if died else nullcontext():
        if died:
            patch.setattr("frozen_cache.stages.train.plot_run", lambda run: sys.exit())
        train_head(**options)
    file = tmp_path / "run" / "run.json"
    old = json.loads(file.read_text())
    del old["finished"]
    file.write_text(json.dumps(old))
    with nullcontext() if died else pytest.raises(UserError, match="holds this run, finished"):
        train_head(**options)
    assert load_record(tmp_path / "run").finished is (True if died else None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"overrides": {"optim.lrr": 1}}, "optim.lrr"),
        ({"preset": "nothing"}, "no preset"),
        ({"overrides": {"head.encoder_layer": 7}}, "encoder_layer"),
        ({"device": "warp"}, "--device"),
    ],
)
def test_a_mistake_is_said_before_anything_is_written(cache, tmp_path, arguments, said):
    with pytest.raises(UserError, match=said):
        train_head(cache=cache, out=tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten_and_not_resumed_as_another(cache, whole):
    with pytest.raises(UserError, match="--resume"):
        train_head(cache=cache, out=whole, overrides=SMALL)
    with pytest.raises(UserError, match=r"optim\.lr was"):
        train_head(cache=cache, out=whole, overrides={"optim.lr": 1.0}, resume=True)


def test_a_folder_of_something_else_is_left_alone(cache, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(UserError, match="no run of train-head"):
        train_head(cache=cache, out=tmp_path / "mine", overrides=SMALL)
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_missing_cache_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.zarr"):
        train_head(cache=tmp_path / "nowhere.zarr", out=tmp_path / "run")


def test_evaluate_writes_metrics_and_coco_results(cache, whole, tmp_path):
    result = evaluate(cache=cache, head=whole, out=tmp_path / "results")
    metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert {kind: metrics[kind] for kind in result.metrics} == result.metrics
    assert metrics["segm"].keys() == metrics["bbox"].keys() >= {"AP", "AP50", "AP75", "APs", "APm", "APl"}
    for kind in ("segm", "bbox"):
        results = json.loads((tmp_path / "results" / f"{kind}_results.json").read_text())
        assert len(results) == 7 * 6
    assert "mask AP / box AP" in result.table()


@pytest.mark.parametrize("arguments", [{}, {"head": Path("x"), "baseline": "box"}, {"baseline": "magic"}])
def test_evaluate_wants_exactly_one_known_thing_to_evaluate(cache, tmp_path, arguments):
    with pytest.raises(UserError):
        evaluate(cache=cache, out=tmp_path / "results", **arguments)
    assert not (tmp_path / "results").exists()


def test_a_head_on_a_cache_of_another_detector_is_refused(fake, whole, tmp_path):
    images, annotations = fake.write_folder(tmp_path / "data")
    extract_features(detector=fake.retrained(), images=images, annotations=annotations, out=tmp_path / "other.zarr")
    with pytest.raises(UserError, match="detector"):
        evaluate(cache=tmp_path / "other.zarr", head=whole, out=tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_damaged_head_is_one_clear_line(cache, whole, tmp_path):
    damaged = tmp_path / "run"
    damaged.mkdir()
    (damaged / "run.json").write_bytes((whole / "run.json").read_bytes())
    (damaged / "best.safetensors").write_bytes((whole / "best.safetensors").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"best\.safetensors"):
        evaluate(cache=cache, head=damaged, out=tmp_path / "results")


def test_the_box_baseline_fills_boxes(cache, tmp_path):
    metrics = evaluate(cache=cache, baseline="box", out=tmp_path / "results").metrics
    # The fake data's objects are filled boxes, so box masks score as boxes do.
    assert metrics["segm"]["AP50"] == pytest.approx(metrics["bbox"]["AP50"], abs=0.05)


def test_trainings_of_different_precision_follow_each_other_in_one_process(cache, tmp_path):
    for precision in ("bf16", "no"):
        overrides = SMALL | {"optim.epochs": 0.1, "mixed_precision": precision}
        assert train_head(cache=cache, out=tmp_path / precision, overrides=overrides).steps > 0


@pytest.mark.parametrize(("options", "steps"), [({}, 7), ({"optim.min_steps": 10}, 10), ({"optim.min_steps": 3}, 7)])
def test_a_recipe_can_ask_for_a_least_number_of_steps(cache, tmp_path, options, steps):
    overrides = SMALL | {"optim.epochs": 1} | options
    assert train_head(cache=cache, out=tmp_path / "run", overrides=overrides).steps == steps


def test_a_run_remembers_where_its_detector_lay(fake, tmp_path):
    images, annotations = fake.write_folder(tmp_path / "data")
    named = f"{Path(fake.__file__)}:uneven"
    extract_features(detector=named, images=images, annotations=annotations, out=tmp_path / "x.zarr")
    train_head(cache=tmp_path / "x.zarr", out=tmp_path / "run", overrides=SMALL | {"optim.epochs": 0.1})
    source = load_record(tmp_path / "run").source
    assert source is not None
    assert source.detector == named
    assert source.spec.weights_sha256 == fake.uneven().spec.weights_sha256
    assert source.label_to_category == {0: 3, 1: 5, 2: 9}
    (tmp_path / "x.zarr" / HINTS_FILE).unlink()
    train_head(cache=tmp_path / "x.zarr", out=tmp_path / "run", resume=True)
    assert load_record(tmp_path / "run").source == source


def test_a_run_of_an_earlier_version_has_no_source_and_is_resumed(cache, tmp_path):
    overrides = SMALL | {"optim.epochs": 0.1}
    train_head(cache=cache, out=tmp_path / "run", overrides=overrides)
    file = tmp_path / "run" / "run.json"
    old = json.loads(file.read_text())
    del old["source"]
    file.write_text(json.dumps(old))
    assert train_head(cache=cache, out=tmp_path / "run", overrides=overrides, resume=True).steps == 1
    assert load_record(tmp_path / "run").source is None


def test_an_unfinished_run_goes_on_by_itself_and_a_finished_one_is_prolonged(cache, tmp_path):
    out = tmp_path / "run"
    train_head(cache=cache, out=out, overrides=SMALL | {"optim.epochs": 1})
    with pytest.raises(UserError, match=r"finished.*--resume"):
        train_head(cache=cache, out=out, overrides=SMALL | {"optim.epochs": 1})
    with pytest.raises(UserError, match=r"optim\.epochs was 1\.0, now 2\.0.*--resume"):
        train_head(cache=cache, out=out, overrides=SMALL | {"optim.epochs": 2})
    assert train_head(cache=cache, out=out, overrides={"optim.epochs": 2}, resume=True).steps == 14
    starts = [json.loads(line) for line in (out / "starts.jsonl").read_text().splitlines()]
    assert [(start["from_step"], start["to_step"]) for start in starts] == [(0, 7), (7, 14)]
    (out / "last.safetensors").unlink()  # as if killed before the first checkpoint
    assert train_head(cache=cache, out=out, overrides=SMALL | {"optim.epochs": 2}).steps == 14
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert named_in_readme(out) >= {"last.safetensors", "run.json"}
    assert "best.safetensors" not in named_in_readme(out)  # nothing was evaluated


def test_numbers_that_are_not_finite_end_the_run_and_are_never_saved(cache, tmp_path):
    with pytest.raises(NotFiniteError, match=r"step \d+: .* not finite.*images .*rate 1e\+20; precision float32"):
        train_head(cache=cache, val_cache=cache, out=tmp_path / "run", overrides=SMALL | {"optim.lr": 1e20})
    for file in (tmp_path / "run").glob("*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(file).values())


def test_a_cache_without_a_matched_object_is_an_error_before_the_first_step(fake, tmp_path):
    images, annotations = fake.write_folder(tmp_path / "data")
    content = json.loads(annotations.read_text())
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1
    annotations.write_text(json.dumps(content))
    out = tmp_path / "crowds.zarr"
    extract_features(detector=fake.uneven(), images=images, annotations=annotations, out=out, force=True)
    with pytest.raises(UserError, match="nothing to train on"):
        train_head(cache=out, out=tmp_path / "run", overrides=SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("variables", "said"),
    [({"WORLD_SIZE": "2", "RANK": "0"}, "no launcher"), ({"WORLD_SIZE": ""}, "not a number"), ({"RANK": "3"}, "fit")],
)
def test_an_environment_of_no_launcher_is_one_clear_line(cache, tmp_path, monkeypatch, variables, said):
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=said):
        train_head(cache=cache, out=tmp_path / "run", overrides=SMALL)
