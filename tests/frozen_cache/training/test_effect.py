"""Keys said to be without effect have none, and every shipped recipe and grid is free of them where it should be."""

from __future__ import annotations

from typing import Any

import pytest

from frozen_cache.detectors.output import FeatureSpec
from frozen_cache.errors import UserError
from frozen_cache.head.describe import describe_head
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.training.config import TrainConfig, load_config
from frozen_cache.training.effect import RULES, without_effect
from frozen_cache.training.grid import grid_names, load_grid
from frozen_cache.training.schedule import learning_rate

CASES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("small-data", {}, {"loss.points": 9, "loss.oversample": 2.0, "loss.importance": 0.5}, {}),
    ("small-data", {}, {"loss.scoring": 3.0}, {"head.mask_scoring": True}),
    ("demo", {}, {"optim.milestones": [0.1], "optim.gamma": 0.5}, {"optim.schedule": "step"}),
    ("demo", {}, {"head.image_layers": 2}, {"head.image_encoder": "deformable"}),
    ("paper", {"head.box_encoder": "none", "head.query_blocks": []}, {"head.box_layers": 3}, {}),
    ("paper", {"head.query_blocks": []}, {"head.query_layers": 1}, {"head.query_blocks": ["ffn"]}),
]
"""Preset, what is set beneath, keys that do nothing then, what gives them an effect."""


@pytest.mark.parametrize(("preset", "beneath", "keys", "cure"), CASES)
def test_keys_without_effect_are_told_until_they_have_one(preset, beneath, keys, cure):
    config = load_config(preset=preset, overrides=beneath | keys)
    lines = without_effect(config, [*keys, "optim.lr"])
    assert [line.split()[0] for line in lines] == list(keys)
    if cure:
        assert without_effect(load_config(preset=preset, overrides=beneath | keys | cure), list(keys)) == []


def test_each_rule_is_tried():
    tried = {key for _, _, keys, _ in CASES for key in keys}
    assert tried == {key for concerned, _, _ in RULES for key in concerned}


def _head(config: TrainConfig) -> tuple[int, int]:
    levels = (FeatureSpec(channels=16, stride=8), FeatureSpec(channels=16, stride=16))
    inputs = HeadInputs(query_dim=16, num_classes=3, c1=FeatureSpec(channels=8, stride=4), levels=levels)
    found = describe_head(config=config.head, inputs=inputs, image_size=(64, 64), boxes=4)
    return found.parameters, found.macs


@pytest.mark.parametrize(("preset", "beneath", "keys", "cure"), [case for case in CASES if "head." in str(case[2])])
def test_the_head_is_the_same_with_and_without_them(preset, beneath, keys, cure):
    small = {"head.width": 16, "head.roi_size": 8} | beneath
    plain, changed, cured = (load_config(preset=preset, overrides=small | more) for more in ({}, keys, keys | cure))
    assert _head(plain) == _head(changed)
    assert not cure or _head(cured) != _head(plain)


def test_the_cosine_knows_no_milestones():
    plain, changed = (load_config(preset="demo", overrides=keys).optim for keys in ({}, CASES[2][2]))
    assert [learning_rate(plain, step=step, total=99) for step in range(99)] == [
        learning_rate(changed, step=step, total=99) for step in range(99)
    ]


@pytest.mark.parametrize("name", grid_names())
def test_no_shipped_grid_has_a_row_that_says_nothing(name):
    grid = load_grid(name)
    for variant in grid.variants():
        assert without_effect(load_config(preset=grid.preset, overrides=variant.set), list(variant.set)) == []


def test_an_ablation_over_such_a_key_warns_before_it_begins(tmp_path, capsys):
    from frozen_cache.progress import showing
    from frozen_cache.stages.ablate import ablate

    (tmp_path / "grid.toml").write_text('title = "t"\npreset = "demo"\n[product]\n"loss.points" = [8, 16]\n')
    with showing(None), pytest.raises(UserError, match="holds no ablation"):
        ablate(cache=tmp_path, val_cache=tmp_path, grid=str(tmp_path / "grid.toml"), out=tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: points ")]
    assert len(said) == 2 and "loss.points has no effect, as loss.supervision is dense" in said[0]
