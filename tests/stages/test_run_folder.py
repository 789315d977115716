"""What becomes of a run folder: damaged or foreign ones, a full disk, Ctrl-C, other caches; and what a run says."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from frozen_cache.cli.main import exit_code
from frozen_cache.errors import NotFiniteError, UserError
from frozen_cache.stages import train as stage
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head
from frozen_cache.training import checkpoint, step, trainer
from frozen_cache.training.checkpoint import load_checkpoint, save_checkpoint

SMALL = {
    "head.width": 16,
    "head.roi_size": 8,
    "head.image_width": 16,
    "head.image_layers": 0,
    "head.box_layers": 1,
    "optim.epochs": 1,
    "optim.batch_size": 2,
    "loss.points": 16,
    "checkpoint_every": 1,
}
SETTINGS = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def caches(fake, tmp_path_factory) -> tuple[Path, Path]:
    """Caches of seven and of three other images."""
    folder = tmp_path_factory.mktemp("caches")
    for name, images, seed in (("train", 7, 0), ("val", 3, 1)):
        data = fake.write_folder(folder / name, images=images, seed=seed)
        extract_features(detector=fake.detector(), images=data[0], annotations=data[1], out=folder / f"{name}.zarr")
    return folder / "train.zarr", folder / "val.zarr"


@pytest.fixture(scope="module")
def whole(caches, tmp_path_factory) -> Path:
    """A finished run of four steps."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train_head(cache=caches[0], val_cache=caches[1], out=out, overrides=SMALL)
    return out


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What stderr holds, which is one line."""
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and "Traceback" not in error
    return error


def _changed(**changes: Any) -> Any:
    """Changes to a record, by dotted key with `__` for the dots."""

    def change(content: bytes) -> bytes:
        values = json.loads(content)
        for key, value in changes.items():
            *path, last = key.split("__")
            at = values
            for part in path:
                at = at[part]
            at[last] = value
        return json.dumps(values).encode()

    return change


DAMAGES = {
    "no text": lambda content: b"\xff\xfe" + content,
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "null": lambda content: b"null",
    "a list": lambda content: b"[1, 2]",
    "deep": lambda content: b"[" * 100_000,
    "width": _changed(config__head__width=10**9),
    "channels": _changed(inputs__query_dim=10**9),
    "minus": _changed(inputs__query_dim=-3),
    "classes": _changed(inputs__num_classes=2),
    "layers": _changed(config__head__image_layers=3),
    "levels": _changed(inputs__levels=[]),
    "text": _changed(inputs__levels="many"),
    "other config": _changed(config=[]),
    "other layer": _changed(encoder_layer="four"),
    "other categories": _changed(categories={"a": 1}),
    "unknown": _changed(something=1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_one_line_for_whoever_reads_it(caches, whole, tmp_path, capsys, damage):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "run.json").write_bytes(DAMAGES[damage]((whole / "run.json").read_bytes()))
    before = (run / "last.safetensors").read_bytes()
    arguments = ["evaluate", "--cache", str(caches[1]), "--head", str(run), "--out", str(tmp_path / "results")]
    assert exit_code(arguments) == 2
    one_line(capsys)
    assert exit_code(["train-head", "--cache", str(caches[0]), "--out", str(run), *SETTINGS]) == 2
    one_line(capsys)
    assert (run / "last.safetensors").read_bytes() == before and not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "progress", [None, 3, {}, {"step": "many"}, {"step": -1}, {"step": 1.5}, {"steps": 3}, {"step": 2, "seconds": []}]
)
def test_a_checkpoint_of_another_make_is_one_line(caches, whole, tmp_path, capsys, progress):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    tensors, saved = load_checkpoint(run / "last.safetensors")
    save_file(tensors, run / "last.safetensors", metadata={"run": json.dumps(saved | {"progress": progress})})
    assert exit_code(["train-head", "--cache", str(caches[0]), "--resume", "--out", str(run)]) == 2
    assert "last.safetensors" in one_line(capsys)


def test_a_file_of_a_run_that_is_no_checkpoint_is_named(caches, whole, tmp_path, capsys):
    head = whole / "run.json"
    arguments = ["evaluate", "--cache", str(caches[1]), "--head", str(head), "--out", str(tmp_path / "results")]
    assert exit_code(arguments) == 2
    assert f"{head} is not a checkpoint: give the run directory {whole}" in one_line(capsys)


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_one_line_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"a": torch.ones(10)}, run={})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(UserError, match=r"last\.safetensors cannot be written.*the one before it is safe") as error:
            save_checkpoint(path, {"a": torch.ones(10_000)}, run={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_run_whose_disk_is_full_goes_on_from_the_checkpoint_before(caches, whole, tmp_path, monkeypatch, capsys):
    original, calls, safe = checkpoint.save_file, [], []

    def full(tensors: dict[str, torch.Tensor], path: Path, **options: Any) -> None:
        calls.append(path)
        if len(calls) == 3:
            Path(path).write_bytes(b"a part")
            safe.append((tmp_path / "run" / "last.safetensors").read_bytes())
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        original(tensors, path, **options)

    monkeypatch.setattr(checkpoint, "save_file", full)
    arguments = ["--quiet", "train-head", "--cache", str(caches[0]), "--out", str(tmp_path / "run"), *SETTINGS]
    assert exit_code(arguments) == 2
    assert "No space left on device" in one_line(capsys)
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == safe[0]
    assert not list((tmp_path / "run").glob(".last*"))
    assert exit_code(arguments) == 0
    one, other = (load_file(run / "last.safetensors") for run in (whole, tmp_path / "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_ctrl_c_prints_the_command_that_goes_on(caches, whole, tmp_path, monkeypatch, capsys):
    run = tmp_path / "my run"
    original = trainer.Trainer._step

    def stopped(self: trainer.Trainer, *arguments: Any, **options: Any) -> Any:
        if self.progress.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments, **options)

    arguments = ["train-head", "--cache", str(caches[0]), "--out", str(run), *SETTINGS]
    monkeypatch.setattr(sys, "argv", ["/somewhere/frozen-cache", *arguments])
    with monkeypatch.context() as patched:
        patched.setattr(trainer.Trainer, "_step", stopped)
        assert exit_code(arguments) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("stopped after step 2 of 4; all that is done is safe in")
    command = shlex.split(said.split("; go on with: ")[1])
    assert command == ["frozen-cache", *arguments]
    assert exit_code(command[1:]) == 0
    assert "going on from step 2" in capsys.readouterr().err
    one, other = (load_file(folder / "last.safetensors") for folder in (whole, run))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_second_ctrl_c_ends_at_once_and_says_the_same_command(caches, tmp_path, monkeypatch, capsys):
    def stopped(self: trainer.Trainer, *arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    arguments = ["train-head", "--cache", str(caches[0]), "--out", str(tmp_path / "run"), *SETTINGS]
    monkeypatch.setattr(sys, "argv", ["frozen-cache", *arguments])
    monkeypatch.setattr(trainer.Trainer, "_step", stopped)
    assert exit_code(arguments) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"stopped at once; checkpoints are safe; go on with: {shlex.join(['frozen-cache', *arguments])}"
    )


def test_a_run_says_what_it_does_and_ends_with_where_it_lies(caches, tmp_path, capsys):
    run = tmp_path / "run"
    train, val = map(str, caches)
    arguments = ["train-head", "--cache", train, "--val-cache", val, "--out", str(run), *SETTINGS]
    assert exit_code(arguments) == 0
    printed = capsys.readouterr()
    head = load_checkpoint(run / "last.safetensors", prefix="head.")[0]
    parameters = sum(value.numel() for value in head.values())
    first, second = [line for line in printed.err.splitlines() if line.startswith(("train: preset", "from "))]
    assert first == f"train: preset paper, {parameters:,} parameters, 4 steps of 2 views, float32 on cpu"
    objects = _matched(caches[0])
    assert second == f"from {train}: 7 views, {objects} matched objects of 3 categories; evaluated on {val}"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    loss = next(line["loss"] for line in lines[::-1] if "loss" in line)
    metrics = next(line["val"] for line in lines if "val" in line)
    done, best, where, beside, next_ = printed.out.splitlines()
    assert done.startswith("4 steps in ") and done.endswith(f"training loss {loss:.4f}")
    assert best == f"best mask AP {metrics['segm']['AP']:.4f} beside box AP {metrics['bbox']['AP']:.4f}, at step 4"
    assert where == f"head in {run}: best.safetensors (best mask AP), last.safetensors"
    assert all((run / name).is_file() for name in beside.removeprefix("beside it: ").split(", "))
    command = shlex.split(next_.removeprefix("next: "))
    assert exit_code(command[1:]) == 0


def _matched(cache: Path) -> int:
    from frozen_cache.cache.reader import CacheReader

    reader = CacheReader(cache)
    return sum(reader.matched(at) for at in range(len(reader.views)))


def test_a_resume_with_another_validation_cache_is_refused(caches, whole, tmp_path):
    run = tmp_path / "run"
    train_head(cache=caches[0], val_cache=caches[1], out=run, overrides=SMALL | {"optim.epochs": 0.5})
    more = {"optim.epochs": 1.0}
    with pytest.raises(UserError, match=r"the validation data was [0-9a-f]{12}, now [0-9a-f]{12}\. "):
        train_head(cache=caches[0], val_cache=caches[0], out=run, overrides=more, resume=True)
    with pytest.raises(UserError, match=r": the training data was [0-9a-f]{12}, now [0-9a-f]{12}[.;]"):
        train_head(cache=caches[1], val_cache=caches[1], out=run, overrides=more, resume=True)
    resumed = train_head(cache=caches[0], out=run, overrides=more, resume=True)
    assert resumed.steps == 4 and resumed.best_ap is not None
    assert [line["step"] for line in map(json.loads, (run / "metrics.jsonl").open()) if "val" in line] == [2, 4]


def _with_a_scaler(monkeypatch: pytest.MonkeyPatch, *, bad: range) -> None:
    """float16's gradient scaler on the CPU, and infinite losses at some steps."""
    accelerator, objective, calls = stage._accelerator, step.objective, []

    def scaling(config: Any, device: str) -> Any:
        made = accelerator(config.model_copy(update={"mixed_precision": "no"}), device)
        made.scaler = torch.amp.GradScaler("cpu")
        return made

    def sometimes_infinite(*arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
        calls.append(1)
        factor = float("inf") if len(calls) - 1 in bad else 1.0
        return {name: value * factor for name, value in objective(*arguments, **options).items()}

    monkeypatch.setattr(stage, "_accelerator", scaling)
    monkeypatch.setattr(stage, "chosen_precision", lambda asked, device: asked)
    monkeypatch.setattr(step, "objective", sometimes_infinite)


def test_float16_may_skip_steps_in_a_row_but_not_without_end(caches, tmp_path, monkeypatch):
    settings = SMALL | {"mixed_precision": "fp16", "optim.epochs": 12, "checkpoint_every": 100}
    with monkeypatch.context() as patched:
        _with_a_scaler(patched, bad=range(3, 23))
        assert train_head(cache=caches[0], out=tmp_path / "some", overrides=settings, device="cpu").steps == 48
    lines = [json.loads(line) for line in (tmp_path / "some" / "metrics.jsonl").read_text().splitlines()]
    assert [("loss" in line, line.get("skipped")) for line in lines] == [(False, 17), (True, None), (True, None)]
    saved = load_file(tmp_path / "some" / "last.safetensors")
    assert all(torch.isfinite(value).all() for value in saved.values())
    # A batch without a RoI has no gradient: the scaler has nothing to skip.
    assert max(int(value) for name, value in saved.items() if name.endswith(".step")) <= 48 - 18
    with monkeypatch.context() as patched:
        _with_a_scaler(patched, bad=range(3, 48))
        with pytest.raises(NotFiniteError, match=r"step 24: .*21 steps in a row.*precision fp16"):
            train_head(cache=caches[0], out=tmp_path / "all", overrides=settings, device="cpu")
    assert not (tmp_path / "all" / "last.safetensors").exists()


def test_ctrl_c_in_the_last_validation_is_heard_and_the_same_command_ends_the_run(
    caches, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    train, val = map(str, caches)
    arguments = ["train-head", "--cache", train, "--val-cache", val, "--out", str(run), *SETTINGS]
    validate = trainer.Trainer._validate

    def stopped(self: trainer.Trainer) -> Any:
        if self.progress.step == self.total:
            os.kill(os.getpid(), signal.SIGINT)
        return validate(self)

    with monkeypatch.context() as patched:
        patched.setattr(trainer.Trainer, "_validate", stopped)
        assert exit_code(arguments) == 130
    assert "stopped after step 4 of 4; all that is done is safe in" in capsys.readouterr().err
    assert not (run / "report.html").exists()
    assert exit_code(arguments) == 0
    assert (run / "report.html").is_file()


@pytest.fixture(scope="module")
def twin(caches, tmp_path_factory) -> Path:
    """A finished run of the same head on the same data with another seed."""
    out = tmp_path_factory.mktemp("twin") / "run"
    train_head(cache=caches[0], val_cache=caches[1], out=out, overrides=SMALL | {"seed": 1})
    return out


@pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors"])
def test_a_checkpoint_of_another_run_of_the_same_head_is_one_line(caches, whole, twin, tmp_path, capsys, name):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.copy(twin / name, run)
    evaluation = ["evaluate", "--cache", str(caches[1]), "--head", str(run / name), "--out", str(tmp_path / "results")]
    training = ["train-head", "--cache", str(caches[0]), "--out", str(run), "--resume", "--epochs", "2"]
    for arguments in [evaluation, training] if name == "last.safetensors" else [evaluation]:
        assert exit_code(arguments) == 2
        assert f"{run / name} was written by another run than" in one_line(capsys)
    assert not (tmp_path / "results").exists()
    assert (run / name).read_bytes() == (twin / name).read_bytes()


def test_checkpoints_of_a_run_of_an_earlier_version_are_taken(caches, whole, tmp_path):
    """They do not say which run wrote them, and so does its record not."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    record = json.loads((run / "run.json").read_text())
    del record["id"], record["finished"]
    (run / "run.json").write_text(json.dumps(record))
    for name in ("best.safetensors", "last.safetensors"):
        tensors, saved = load_checkpoint(run / name)
        save_file(tensors, run / name, metadata={"run": json.dumps({k: v for k, v in saved.items() if k != "run"})})
    arguments = ["evaluate", "--cache", str(caches[1]), "--head", str(run), "--out", str(tmp_path / "results")]
    assert exit_code(arguments) == 0
    assert exit_code(["train-head", "--cache", str(caches[0]), "--out", str(run), "--resume", "--epochs", "1.5"]) == 0
    assert "id" not in {key for key, value in json.loads((run / "run.json").read_text()).items() if value is not None}
