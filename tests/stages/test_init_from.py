"""`train-head --init`: a head starts from another's weights; what differs is named and starts anew."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from frozen_cache.errors import NotFiniteError, UserError
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head
from frozen_cache.training.run_directory import load_record

pytestmark = pytest.mark.usefixtures("unplotted")

SMALL: dict[str, Any] = {
    "head.width": 16, "head.roi_size": 8, "head.image_width": 16, "head.image_layers": 0, "head.box_layers": 1,
    "optim.batch_size": 4, "loss.points": 16, "optim.epochs": 1,
}  # fmt: skip
STILL = SMALL | {"optim.lr": 1e-12, "seed": 5}
"""A training that leaves its weights where they are."""


@dataclass(frozen=True)
class Made:
    """A cache and a head trained from it."""

    cache: Path
    run: Path


@pytest.fixture(scope="module")
def made(fake: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("init")
    images, annotations = fake.write_folder(folder / "data")
    cache, run = folder / "train.zarr", folder / "run"
    extract_features(detector=fake.uneven(), images=images, annotations=annotations, out=cache)
    train_head(cache=cache, out=run, overrides=SMALL, device="cpu")
    return Made(cache, run)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that a training says."""
    lines: list[str] = []
    monkeypatch.setattr("frozen_cache.stages.train.say", lines.append)
    return lines


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {name: value for name, value in load_file(run / "last.safetensors").items() if name.startswith("head.")}


def test_it_starts_where_the_other_ended(made, tmp_path, said):
    train_head(cache=made.cache, out=tmp_path / "run", overrides=STILL, init=made.run, device="cpu")
    begun, ended = weights(tmp_path / "run"), weights(made.run)
    for name, value in ended.items():
        torch.testing.assert_close(begun[name], value, atol=1e-8, rtol=0)
    assert f"init: {len(ended)} of {len(ended)} tensors from {made.run / 'last.safetensors'}" in said
    assert f"first weights: `{made.run / 'last.safetensors'}`" in (tmp_path / "run" / "README.md").read_text()
    train_head(cache=made.cache, out=tmp_path / "random", overrides=STILL, device="cpu")
    drawn = weights(tmp_path / "random")
    assert not all(torch.allclose(drawn[name], value, atol=1e-3) for name, value in ended.items())


def test_what_differs_is_named_and_starts_anew(made, tmp_path, said):
    other = STILL | {"head.roi_size": 12, "head.query_in_roi": True, "head.neck": False}
    train_head(cache=made.cache, out=tmp_path / "run", overrides=other, init=made.run, device="cpu")
    train_head(cache=made.cache, out=tmp_path / "random", overrides=other, device="cpu")
    line = next(text for text in said if text.startswith("init: "))
    assert "box_encoder.position 64x16, here 144x16" in line
    assert "roi_query.weight new, here 16x5" in line
    assert "not used: feature_map.neck" in line
    begun, anew, ended = weights(tmp_path / "run"), weights(tmp_path / "random"), weights(made.run)
    for name, value in begun.items():
        fits = name in ended and ended[name].shape == value.shape
        torch.testing.assert_close(value, ended[name] if fits else anew[name], atol=1e-8, rtol=0)


def test_a_run_remembers_what_it_began_with(made, tmp_path):
    out = tmp_path / "run"
    train_head(cache=made.cache, out=out, overrides=STILL, init=made.run, device="cpu")
    record = load_record(out)
    assert record.init_from == made.run / "last.safetensors" and record.init is not None
    train_head(cache=made.cache, out=out, overrides=STILL | {"optim.epochs": 2}, resume=True, device="cpu")
    assert load_record(out).init == record.init
    with pytest.raises(UserError, match=r"init was .*, now None"):
        train_head(cache=made.cache, out=out, overrides=STILL, device="cpu")
    # Killed before its first checkpoint, it begins with the same weights again.
    (out / "last.safetensors").unlink()
    train_head(cache=made.cache, out=out, resume=True, device="cpu")
    ended = weights(made.run)
    assert all(torch.allclose(value, ended[name], atol=1e-8) for name, value in weights(out).items())


def test_refusals(made, tmp_path):
    def begin(init: Path, **settings: Any) -> None:
        train_head(cache=made.cache, out=tmp_path / "out", overrides=STILL | settings, init=init, device="cpu")

    with pytest.raises(UserError, match=r"--init .*nowhere does not exist"):
        begin(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--init .*empty holds no checkpoint"):
        begin(tmp_path / "empty")
    copied = tmp_path / "copy"
    shutil.copytree(made.run, copied)
    tensors = load_file(copied / "last.safetensors")
    save_file({"head.other": torch.zeros(1)}, copied / "last.safetensors", metadata={"run": "{}"})
    with pytest.raises(UserError, match="none of its 1 tensors fits"):
        begin(copied)
    bad = {name: value.float() * torch.nan for name, value in tensors.items()}
    save_file(bad, copied / "last.safetensors", metadata={"run": "{}"})
    with pytest.raises(NotFiniteError, match="not finite"):
        begin(copied)
    assert not (tmp_path / "out").exists()
