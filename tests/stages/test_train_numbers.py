"""Numbers that float16 does not hold, and several processes that must give those of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from frozen_cache.cache.reader import CacheReader
from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head
from frozen_cache.training import trainer
from frozen_cache.training.batches import ViewStore

PLAIN = {
    "head.width": 16,
    "head.roi_size": 16,
    "head.image_width": 16,
    "head.image_layers": 1,
    "head.box_layers": 1,
    "loss.supervision": "dense",
    "optim.epochs": 3,
    "optim.batch_size": 3,
    "optim.clip_grad_norm": 0.5,
}
"""Nothing is drawn at random in a step. Seven views make batches of 3, 3 and 1: the last leaves a process none."""
OPTIONS: dict[str, Any] = {
    "overrides": PLAIN | {"optim.epochs": 17, "eval_every": 8, "checkpoint_every": 10},
    "device": "cpu",
}


TWO = """
import os
from pathlib import Path
from frozen_cache.cache.reader import CacheReader
from frozen_cache.evaluation import dealt
from frozen_cache.processes import leave_processes
from frozen_cache.stages.train import train_head
from frozen_cache.training import trainer as training
from frozen_cache.training.trainer import Trainer
dealt.CHUNK, training.LOG_EVERY = 2, 1
cache, val_cache, out, options, dies_at, rank = CACHE, VAL_CACHE, OUT, OPTIONS, DIES_AT, os.environ["RANK"]
read, save = CacheReader.read_stored, Trainer.save_last
def noted(reader, index, **how):
    with open(f"{out}-{rank}.txt", "a") as file:
        print(index, file=file)
    return read(reader, index, **how)
def dying(trainer):
    save(trainer)
    if trainer.progress.step == dies_at:
        os._exit(1)
CacheReader.read_stored, Trainer.save_last = noted, dying
train_head(cache=cache, val_cache=val_cache, out=out, workers=1, **options)
leave_processes()
"""


def in_two_processes(cache: Path, out: Path, *, val_cache: Path | None = None, dies_at: int | None = None) -> None:
    """Train under torchrun; `OUT-RANK.txt` has the views that each process reads, in order."""
    values = {"VAL_CACHE": val_cache, "CACHE": cache, "OUT": out, "OPTIONS": OPTIONS, "DIES_AT": dies_at}
    text = TWO
    for name, value in values.items():
        text = text.replace(name, f"Path({str(value)!r})" if isinstance(value, Path) else repr(value))
    script = out.with_suffix(".py")
    script.write_text(text)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (dies_at is None), done.stderr[-2000:]


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(fake: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cache, and a run of 51 steps on it by one process, validated on the same views."""
    folder = tmp_path_factory.mktemp("alone")
    images, annotations = fake.write_folder(folder / "data")
    cache = folder / "t.zarr"
    extract_features(detector=fake.uneven(), images=images, annotations=annotations, out=cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "LOG_EVERY", 1)
        train_head(cache=cache, val_cache=cache, out=folder / "one", **OPTIONS)
    return cache, folder / "one"


def test_two_processes_give_the_losses_and_weights_of_one(alone, tmp_path):
    cache, run = alone
    in_two_processes(cache, tmp_path / "two", val_cache=cache)
    one, two = lines_of(run), lines_of(tmp_path / "two")
    assert [line["step"] for line in one] == [line["step"] for line in two]
    losses, others = ([line["loss"] for line in lines if "loss" in line] for lines in (one, two))
    assert len(losses) > 50 and others == pytest.approx(losses, abs=1e-5)
    expected, shared = ([line["val"] for line in lines if "val" in line] for lines in (one, two))
    assert len(expected) == len(shared) > 1
    for mine, found in zip(expected, shared, strict=True):
        for kind, metrics in mine.items():
            assert found[kind] == pytest.approx(metrics, abs=1e-4)
    same_weights(run, tmp_path / "two")


def test_each_process_reads_its_own_views_and_a_run_of_two_goes_on_with_one(alone, tmp_path, monkeypatch):
    """Killed after 30 of 51 steps, and resumed alone: as if one process had trained from the start."""
    cache, run = alone
    monkeypatch.setattr(trainer, "LOG_EVERY", 1)
    in_two_processes(cache, tmp_path / "two", dies_at=30)
    first, second = ([int(line) for line in (tmp_path / f"two-{rank}.txt").read_text().split()] for rank in (0, 1))
    assert sorted(first[:5] + second[:2]) == list(range(7))  # of the first epoch's batches 2 + 2 + 1, and 1 + 1
    resumed = train_head(cache=cache, out=tmp_path / "two", resume=True, device="cpu")
    assert resumed.steps == 51
    found = {line["step"]: line["loss"] for line in lines_of(tmp_path / "two") if "loss" in line}
    expected = {line["step"]: line["loss"] for line in lines_of(run) if "loss" in line}
    assert found == pytest.approx(expected, abs=1e-5)
    same_weights(run, tmp_path / "two")


def same_weights(run: Path, other: Path) -> None:
    weights, others = (load_file(each / "last.safetensors") for each in (run, other))
    for name in weights:
        torch.testing.assert_close(others[name], weights[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("scale", [1e5, 1e30])
def test_what_was_stored_is_what_is_read_beyond_float16(fake, tmp_path, scale):
    images, annotations = fake.write_folder(tmp_path / "data", images=3)
    losses = {}
    for precision in ("float32", "int8", "coded"):
        detector = fake.FakeDetector(InputRule(resize="stretch", size=(32, 32)), scale=scale)
        cache = tmp_path / f"{precision}.zarr"
        extract_features(detector=detector, images=images, annotations=annotations, out=cache, precision=precision)
        reader = CacheReader(cache)
        view = ViewStore(reader, encoder_layer=2, c1=True, memory_bytes=0).read(0)
        assert view.c1.unpacked().dtype == (torch.float32 if precision == "float32" else torch.int8)
        assert torch.equal(view.c1.decoded(), reader.read(0).c1)
        assert scale / 100 < view.c1.decoded().abs().max() < scale * 100
        if scale == 1e5:
            train_head(cache=cache, out=tmp_path / precision, overrides=PLAIN, device="cpu")
            lines = (tmp_path / precision / "metrics.jsonl").read_text().splitlines()
            losses[precision] = json.loads(lines[-1])["loss"]
    if losses:
        assert losses["int8"] == pytest.approx(losses["float32"], rel=0.02)
        assert losses["coded"] == pytest.approx(losses["float32"], rel=0.2)
