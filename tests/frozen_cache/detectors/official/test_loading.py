"""Official checkpoints load whole; everything else is refused in one line that names what is wrong."""

from __future__ import annotations

import argparse
import collections
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from frozen_cache.detectors.official import NAMED, NamedDetector, load_official
from frozen_cache.detectors.official.config import OfficialConfig, SwinConfig
from frozen_cache.detectors.official.export import load_exported, save_weights
from frozen_cache.detectors.official.layout import build_model, official_layout
from frozen_cache.errors import UserError

IMAGES = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, kit: Any) -> dict[str, OfficialConfig]:
    """The names `small-hdetr` and `small-dino`."""
    configs = {
        "small-hdetr": kit.cases["hdetr_swin_small"].config,
        "small-dino": replace(kit.cases["dino_focal_small"].config, label_rows=92),
    }
    for name, config in configs.items():
        named = NamedDetector(title=name, config=config, top_k=10, weights="made by the test")
        monkeypatch.setitem(NAMED, name, named)
    return configs


@pytest.fixture
def state(kit: Any, small: dict[str, OfficialConfig]) -> Callable[[str], dict[str, Tensor]]:
    """A whole official state dict; aliases share their storage, as they do in the official model."""
    return lambda name: kit.state(small[name], "")


def refusal(name: str, path: Path) -> str:
    """The message, which is one line and names the file."""
    with pytest.raises(UserError) as caught:
        load_official(name, path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def test_the_whole_official_layout_loads(tmp_path: Path, small: Any, state: Any) -> None:
    weights = {f"module.{key}": each for key, each in state("small-hdetr").items()}
    weights |= {
        "module.total_ops": torch.zeros(1, dtype=torch.float64),
        "module.backbone.0.body.total_params": torch.zeros(1, dtype=torch.float64),
        "module.transformer.total_ops": torch.zeros(1, dtype=torch.float64),
        "module.backbone.0.body.layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64),
    }
    path = tmp_path / "official.pth"
    torch.save(
        {
            "model": weights,
            "optimizer": {"state": {0: {"step": 1}}, "param_groups": []},
            "lr_scheduler": {"milestones": collections.Counter([30])},
            "epoch": 35,
            "args": argparse.Namespace(num_queries_one2one=20, lr=2e-4, output_dir="exps"),
        },
        path,
    )
    detector = load_official("small-hdetr", path)
    assert detector.spec.num_queries == 20
    assert detector.spec.top_k == 10
    assert detector.model.query_embed.weight.shape == (30, 256)  # the one-to-many rows are kept, and not run
    assert detector(IMAGES).queries.shape == (1, 20, 256)


@pytest.mark.parametrize("place", ["model", "ema_model", "state_dict", None])
def test_every_place_of_the_weights_gives_the_same_detector(
    tmp_path: Path, small: Any, state: Any, place: str | None
) -> None:
    weights = state("small-dino")
    torch.save(weights if place is None else {place: weights, "epoch": 1}, tmp_path / "w.pth")
    save_file({key: each.clone() for key, each in weights.items()}, tmp_path / "w.safetensors")
    one, other = (
        load_official("small-dino", tmp_path / "w.pth"),
        load_official("small-dino", tmp_path / "w.safetensors"),
    )
    assert one.spec == other.spec
    assert (
        one.spec.weights_sha256
        != load_official("small-hdetr", _saved(tmp_path, state("small-hdetr"))).spec.weights_sha256
    )


def test_half_precision_and_legacy_files_load(tmp_path: Path, small: Any, state: Any) -> None:
    weights = {key: each.half() for key, each in state("small-hdetr").items()}
    torch.save({"model": weights}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    detector = load_official("small-hdetr", tmp_path / "old.pth")
    assert all(each.dtype == torch.float32 for each in detector.model.parameters())
    assert detector(IMAGES).queries.isfinite().all()


def test_encoder_layers_and_top_k_may_be_chosen(tmp_path: Path, small: Any, state: Any) -> None:
    detector = load_official("small-hdetr", _saved(tmp_path, state("small-hdetr")), (1, 6), top_k=7)
    assert detector.spec.encoder_layers == (1, 6) == tuple(detector(IMAGES).encoder)
    assert detector.spec.top_k == 7


@pytest.mark.parametrize("name", ["small-hdetr", "small-dino"])
def test_a_fine_tuned_checkpoint_brings_its_own_classes(tmp_path: Path, kit: Any, small: Any, name: str) -> None:
    config = replace(small[name], classes=6, label_rows=7)
    detector = load_official(name, _saved(tmp_path, kit.state(config, "")))
    assert detector.spec.num_labels == 6
    output = detector(IMAGES)
    assert output.scores.shape[-1] == 6 and output.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert detector.spec.label_is_category_id and detector.spec.label_names is None


def test_sizes_follow_the_checkpoint(tmp_path: Path, kit: Any, small: Any) -> None:
    four = load_official("small-dino", _saved(tmp_path, kit.state(replace(small["small-dino"], levels=4), "")))
    assert four.spec.c1 is not None and [each.stride for each in four.spec.encoder_levels] == [8, 16, 32, 64]
    backbone = replace(small["small-hdetr"].backbone, window=4)
    weights = kit.state(replace(small["small-hdetr"], backbone=backbone, queries=40, one_to_many=1500), "")
    other = load_official("small-hdetr", _saved(tmp_path, weights))
    assert isinstance(other.model.config.backbone, SwinConfig) and other.model.config.backbone.window == 4
    assert other.spec.num_queries == 40


def test_missing_and_unexpected_keys_are_named_and_counted(tmp_path: Path, small: Any, state: Any) -> None:
    weights = state("small-hdetr")
    del weights["transformer.enc_output.weight"], weights["transformer.level_embed"]
    weights["surprise.weight"] = torch.zeros(1)
    message = refusal("small-hdetr", _saved(tmp_path, weights))
    assert "lacks 2 of 375 keys (" in message and "has 1 unexpected (surprise.weight)" in message
    assert "transformer.enc_output.weight" in message and "transformer.level_embed" in message


def test_a_head_found_under_its_alias_only_is_not_missing(tmp_path: Path, small: Any, state: Any) -> None:
    weights = {key: each for key, each in state("small-hdetr").items() if not key.startswith("class_embed.1.")}
    assert load_official("small-hdetr", _saved(tmp_path, weights))(IMAGES).scores.isfinite().all()


def test_heads_that_should_be_shared_and_differ_are_refused(tmp_path: Path, small: Any, state: Any) -> None:
    weights = state("small-dino")
    weights["class_embed.2.weight"] = weights["class_embed.2.weight"] + 1
    assert "class_embed.2.weight differs" in refusal("small-dino", _saved(tmp_path, weights))


def test_another_shape_is_named(tmp_path: Path, small: Any, state: Any) -> None:
    weights = state("small-hdetr")
    weights["transformer.enc_output.weight"] = torch.zeros(256, 128)
    message = refusal("small-hdetr", _saved(tmp_path, weights))
    assert "transformer.enc_output.weight has shape (256, 128), expected (256, 256)" in message


@pytest.mark.parametrize(("asked", "given"), [("dino-r50", "hdetr-r50"), ("hdetr-swin-t", "dino-swin-l")])
def test_another_architecture_is_recognised(tmp_path: Path, asked: str, given: str) -> None:
    with torch.device("meta"):
        layout = official_layout(build_model(replace(NAMED[given].config, dim=32, ffn=8)))
    weights = {key: torch.zeros(1).expand(entry.shape) for key, entry in layout.items()}
    message = refusal(asked, _saved(tmp_path, weights))
    assert f"this is no {asked}, it looks like {given}" in message and "lacks " in message


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    message = refusal("hdetr-r50", _saved(tmp_path, nn.Linear(2, 2).state_dict()))
    assert "has 2 unexpected (bias, weight)" in message and "is it a checkpoint of H-Deformable-DETR" in message


class _RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_file_that_would_run_code_is_refused_unrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_format: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    content = {"model": {"a": torch.zeros(1)}, "args": _RunsCode()}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    assert "would call `posix.system`" in refusal("hdetr-r50", path)
    assert not (tmp_path / "executed").exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "module.pth"
    torch.save(nn.Linear(2, 2), path)
    assert "would call `torch.nn.modules.linear.Linear`" in refusal("hdetr-r50", path)


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["new.pth", "old.pth", "w.safetensors"])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str, kept: float) -> None:
    path = tmp_path / kind
    weights = {"a": torch.zeros(30000), "b": torch.zeros(2)}
    if kind == "w.safetensors":
        save_file(weights, path)
    else:
        torch.save({"model": weights}, path, _use_new_zipfile_serialization=kind == "new.pth")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    message = refusal("hdetr-r50", path)
    assert "truncated" in message or "damaged" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [([1, 2], "holds a list"), ({"epoch": 3}, "found: epoch"), ({"model": {}}, "holds no state dict")],
)
def test_a_file_without_weights_is_refused(tmp_path: Path, content: Any, words: str) -> None:
    path = tmp_path / "x.pth"
    torch.save(content, path)
    assert words in refusal("hdetr-r50", path)


def test_a_web_page_a_folder_and_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>quota exceeded</html>")
    assert "not a PyTorch checkpoint" in refusal("hdetr-r50", tmp_path / "page.pth")
    (tmp_path / "text.pth").write_text("text\n")
    assert "not a readable checkpoint" in refusal("hdetr-r50", tmp_path / "text.pth")
    assert "no such file" in refusal("hdetr-r50", tmp_path)
    assert "no such file" in refusal("hdetr-r50", tmp_path / "absent.pth")


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"hdetr-r51.*hdetr-r50, hdetr-swin-t"):
        load_official("hdetr-r51", tmp_path / "x.pth")


def _saved(folder: Path, weights: dict[str, Tensor]) -> Path:
    path = folder / "checkpoint.pth"
    torch.save({"model": weights}, path)
    return path


@pytest.mark.parametrize("name", ["small-hdetr", "small-dino"])
def test_exported_weights_give_the_same_detector(tmp_path: Path, small: Any, state: Any, name: str) -> None:
    detector = load_official(name, _saved(tmp_path, state(name)))
    save_weights(detector, tmp_path / "own.safetensors")
    spec = detector.spec
    again = load_exported(
        name,
        tmp_path / "own.safetensors",
        queries=detector.model.config.queries,
        encoder_layers=spec.encoder_layers,
        top_k=7,
    )
    assert again.spec == spec.model_copy(update={"top_k": 7})
    assert again.model.config == detector.model.config
    with pytest.raises(UserError, match="no detector is named"):
        load_exported("hdetr-r51", tmp_path / "own.safetensors", queries=None, encoder_layers=(4,), top_k=7)
