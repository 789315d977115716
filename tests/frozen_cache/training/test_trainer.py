"""The training loop's settings have their effect, watched from outside on a cache of a few random views."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from frozen_cache.head.mask_head import MaskHead
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head
from frozen_cache.training.config import OptimConfig
from frozen_cache.training.schedule import learning_rate

FAKE = Path(__file__).parents[2] / "stages" / "fake_detector.py"
SMALL = {
    "head.width": 16,
    "head.roi_size": 8,
    "head.image_width": 16,
    "head.image_layers": 0,
    "head.box_layers": 1,
    "optim.epochs": 1,
    "optim.batch_size": 2,
    "loss.points": 16,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of seven images, two views each."""
    spec = importlib.util.spec_from_file_location("fake_detector_of_trainer", FAKE)
    assert spec is not None and spec.loader is not None
    fake: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    folder = tmp_path_factory.mktemp("cache")
    images, annotations = fake.write_folder(folder / "data")
    out = folder / "train.zarr"
    extract_features(detector=fake.detector(), images=images, annotations=annotations, out=out, views=2)
    return out


class Watched:
    """What AdamW was given at each step, and the weights after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.groups: list[dict[str, Any]] = []
        self.weights: list[list[torch.Tensor]] = []
        self.cleared, self.training = 0, set()
        step, clear, forward = torch.optim.AdamW.step, torch.optim.AdamW.zero_grad, MaskHead.forward

        def watched_step(optimizer: torch.optim.AdamW, *args: Any, **options: Any) -> Any:
            [group] = optimizer.param_groups
            self.groups.append({key: value for key, value in group.items() if key != "params"})
            done = step(optimizer, *args, **options)
            self.weights.append([value.detach().clone() for value in group["params"]])
            return done

        def watched_clear(optimizer: torch.optim.AdamW, *args: Any, **options: Any) -> None:
            self.cleared += 1
            clear(optimizer, *args, **options)

        def watched_forward(head: MaskHead, *args: Any) -> Any:
            self.training.add(head.training)
            return forward(head, *args)

        monkeypatch.setattr(torch.optim.AdamW, "step", watched_step)
        monkeypatch.setattr(torch.optim.AdamW, "zero_grad", watched_clear)
        monkeypatch.setattr(MaskHead, "forward", watched_forward)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_the_optimizer_gets_the_schedule_s_rate_its_betas_and_weight_decay(
    cache: Path, tmp_path: Path, watched: Watched
) -> None:
    overrides = SMALL | {"optim.warmup_steps": 2, "optim.betas": [0.8, 0.95], "optim.weight_decay": 0.25}
    train_head(cache=cache, out=tmp_path / "run", overrides=overrides)
    config = OptimConfig(warmup_steps=2)
    assert [group["lr"] for group in watched.groups] == [
        pytest.approx(learning_rate(config, step=step, total=7)) for step in range(7)
    ]
    assert {(tuple(group["betas"]), group["weight_decay"]) for group in watched.groups} == {((0.8, 0.95), 0.25)}
    assert watched.cleared >= 7 and watched.training == {True}


def test_the_moving_average_of_the_weights_is_saved_as_the_head(cache: Path, tmp_path: Path, watched: Watched) -> None:
    train_head(cache=cache, out=tmp_path / "run", overrides=SMALL | {"optim.ema_decay": 0.75})
    average = watched.weights[0]
    for weights in watched.weights[1:]:
        average = [0.75 * old + 0.25 * new for old, new in zip(average, weights, strict=True)]
    saved = load_file(tmp_path / "run" / "last.safetensors")
    heads = [value for name, value in saved.items() if name.startswith("head.")]
    for value in average:
        assert any(value.shape == head.shape and torch.allclose(value, head, atol=1e-6) for head in heads)
    raw = [value for name, value in saved.items() if name.startswith("raw.")]
    for value in watched.weights[-1]:
        assert any(torch.equal(value, each) for each in raw if each.shape == value.shape)


def test_the_best_checkpoint_is_that_of_the_highest_mask_ap(
    cache: Path, tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    import frozen_cache.stages.train as stage

    original, found = stage.evaluate_cache, iter([0.25, 0.5, 0.125])

    def evaluated(*args: Any, **options: Any) -> Any:
        evaluation = original(*args, **options)
        evaluation.metrics["segm"]["AP"] = next(found)
        return evaluation

    monkeypatch.setattr(stage, "evaluate_cache", evaluated)
    result = train_head(
        cache=cache, val_cache=cache, out=tmp_path / "run", overrides=SMALL | {"optim.epochs": 3, "optim.lr": 0.01}
    )
    assert (result.best_ap, result.best_step) == (0.5, 14)
    heads = list(load_file(tmp_path / "run" / "best.safetensors").values())
    for value in watched.weights[13]:
        assert any(torch.equal(value, head) for head in heads if head.shape == value.shape)


@pytest.mark.parametrize(("views", "steps"), [(1, 4), (2, 7)])
def test_only_so_many_views_of_an_image_are_trained_on(cache: Path, tmp_path: Path, views: int, steps: int) -> None:
    assert train_head(cache=cache, out=tmp_path / "run", overrides=SMALL | {"views": views}).steps == steps
