"""Numbers that float16 does not hold, and several processes that must give those of one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from frozen_cache.cache.reader import CacheReader
from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head
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


def test_two_processes_give_the_losses_and_weights_of_one(fake, tmp_path):
    images, annotations = fake.write_folder(tmp_path / "data")
    cache = tmp_path / "t.zarr"
    extract_features(detector=fake.uneven(), images=images, annotations=annotations, out=cache)
    options = {"overrides": PLAIN, "device": "cpu"}
    train_head(cache=cache, val_cache=cache, out=tmp_path / "one", **options)
    script = tmp_path / "two.py"
    script.write_text(f"""
from pathlib import Path
from frozen_cache.evaluation import dealt
from frozen_cache.processes import leave_processes
from frozen_cache.stages.train import train_head
dealt.CHUNK = 2
cache = Path({str(cache)!r})
train_head(cache=cache, val_cache=cache, out=Path({str(tmp_path / "two")!r}), **{options!r})
leave_processes()
""")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert [line["step"] for line in one] == [line["step"] for line in two]
    losses, others = ([line["loss"] for line in lines if "loss" in line] for lines in (one, two))
    assert others == pytest.approx(losses, abs=1e-5)
    alone, shared = ([line["val"] for line in lines if "val" in line] for lines in (one, two))
    assert len(alone) == len(shared) > 1
    for expected, found in zip(alone, shared, strict=True):
        for kind, metrics in expected.items():
            assert found[kind] == pytest.approx(metrics, abs=1e-4)
    weights, others = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
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
