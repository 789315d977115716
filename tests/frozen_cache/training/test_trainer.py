"""The training loop's settings have their effect, watched from outside on a cache of a few random views."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from frozen_cache.head.mask_head import MaskHead
from frozen_cache.stages.train import train_head
from frozen_cache.training import reading
from frozen_cache.training.batches import make_batch
from frozen_cache.training.config import OptimConfig
from frozen_cache.training.schedule import learning_rate
from frozen_cache.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("unplotted")
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


class Watched:
    """What AdamW was given at each step, and the weights after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.groups: list[dict[str, Any]] = []
        self.weights: list[list[torch.Tensor]] = []
        self.gradients: list[list[torch.Tensor]] = []
        self.images: list[int] = []
        self.cleared, self.training, self.evaluating, self.types = 0, set(), set(), set()
        step, clear, forward = torch.optim.AdamW.step, torch.optim.AdamW.zero_grad, MaskHead.forward

        def watched_step(optimizer: torch.optim.AdamW, *args: Any, **options: Any) -> Any:
            [group] = optimizer.param_groups
            self.groups.append({key: value for key, value in group.items() if key != "params"})
            self.gradients.append([value.grad.clone() for value in group["params"] if value.grad is not None])
            done = step(optimizer, *args, **options)
            self.weights.append([value.detach().clone() for value in group["params"]])
            return done

        def watched_clear(optimizer: torch.optim.AdamW, *args: Any, **options: Any) -> None:
            self.cleared += 1
            clear(optimizer, *args, **options)

        def watched_forward(head: MaskHead, *args: Any) -> Any:
            if torch.is_inference_mode_enabled():
                self.evaluating.add(head.training)
            else:
                self.training.add(head.training)
                self.types.add(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
            return forward(head, *args)

        def watched_batch(store: Any, indices: list[int], *args: Any, **options: Any) -> Any:
            self.images.append(len(indices))
            return make_batch(store, indices, *args, **options)

        monkeypatch.setattr(reading, "make_batch", watched_batch)
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
    import frozen_cache.stages.validation as stage

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


def test_gradients_of_a_larger_norm_are_scaled_down_to_it(cache: Path, tmp_path: Path, watched: Watched) -> None:
    def first(out: Path, **options: float) -> tuple[list[torch.Tensor], float]:
        at = len(watched.gradients)
        train_head(cache=cache, out=out, overrides=SMALL | {"optim.epochs": 0.1} | options)
        gradients = watched.gradients[at]
        return gradients, float(torch.cat([value.flatten() for value in gradients]).norm())

    free, norm = first(tmp_path / "free")
    clipped, limited = first(tmp_path / "clipped", **{"optim.clip_grad_norm": norm / 4})
    assert limited == pytest.approx(norm / 4, rel=1e-3)
    for one, other in zip(free, clipped, strict=True):
        torch.testing.assert_close(one / 4, other, rtol=1e-3, atol=1e-7)
    untouched, same = first(tmp_path / "loose", **{"optim.clip_grad_norm": norm * 4})
    assert same == pytest.approx(norm) and all(map(torch.equal, free, untouched))


def test_validation_is_in_eval_mode_and_training_in_training_mode_after_it(
    cache: Path, tmp_path: Path, watched: Watched
) -> None:
    overrides = SMALL | {"eval_every": 0.3, "head.feature_dropout": 0.5}
    train_head(cache=cache, val_cache=cache, out=tmp_path / "run", overrides=overrides)
    assert (watched.training, watched.evaluating) == ({True}, {False})
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val" in line] == [2, 4, 6, 7]


@pytest.mark.parametrize(("size", "sizes"), [(3, [3, 3, 3, 3, 2]), (20, [14])])
def test_a_step_takes_a_batch_of_views(
    cache: Path, tmp_path: Path, watched: Watched, size: int, sizes: list[int]
) -> None:
    train_head(cache=cache, out=tmp_path / "run", overrides=SMALL | {"optim.batch_size": size})
    assert sorted(watched.images, reverse=True) == sizes


@pytest.mark.parametrize(("precision", "dtype"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_the_head_runs_in_the_precision_asked_for_and_its_weights_stay_float32(
    cache: Path, tmp_path: Path, watched: Watched, precision: str, dtype: torch.dtype
) -> None:
    train_head(cache=cache, out=tmp_path / "run", overrides=SMALL | {"mixed_precision": precision}, device="cpu")
    assert watched.types == {dtype}
    assert {value.dtype for value in watched.weights[-1]} == {torch.float32}


def test_a_checkpoint_is_written_every_so_many_steps(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    save = Trainer.save_last

    def saved(trainer: Trainer) -> None:
        steps.append(trainer.progress.step)
        save(trainer)

    monkeypatch.setattr(Trainer, "save_last", saved)
    train_head(cache=cache, out=tmp_path / "run", overrides=SMALL | {"checkpoint_every": 3})
    assert steps == [3, 6, 7]
