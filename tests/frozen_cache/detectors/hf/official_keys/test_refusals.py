"""What does not fit is one clear line; what only training needs is no obstacle."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from frozen_cache.detectors.hf.official_keys import BY_NAME
from frozen_cache.detectors.load import load_detector
from frozen_cache.detectors.names import CONVERTED, OFFICIAL
from frozen_cache.detectors.official import NAMED
from frozen_cache.errors import UserError


def refusal(name: str, file: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_detector(name, weights=file)
    message = str(caught.value)
    assert message.startswith(f"weights {file}: ") and "\n" not in message
    return message


def test_missing_unexpected_and_misshapen_weights_are_named(tmp_path: Path, kit: Any) -> None:
    state = kit.state("rtdetrv2")
    lost = [state.pop(f"decoder.decoder.layers.1.self_attn.{name}") for name in ("in_proj_weight", "in_proj_bias")]
    state["decoder.tgt_embed.weight"] = torch.zeros(300, 32)
    message = refusal("rtdetrv2-r18", kit.save(tmp_path, state))
    assert "lacks 2 of " in message and "(decoder.decoder.layers.1.self_attn.in_proj_" in message
    assert "has 1 unexpected (decoder.tgt_embed.weight)" in message
    assert len(lost) == 2

    state = kit.state("rtdetrv2")
    state["decoder.enc_score_head.weight"] = torch.zeros(1, 32)
    assert "decoder.enc_score_head.weight has shape (1, 32), expected (3, 32)" in refusal(
        "rtdetrv2-r18", kit.save(tmp_path, state)
    )
    state = kit.state("rtdetrv2")
    del state["encoder.input_proj.0.conv.weight"]
    assert "lacks encoder.input_proj.0.conv.weight" in refusal("rtdetrv2-r18", kit.save(tmp_path, state))


def test_another_family_or_size_is_recognised(tmp_path: Path, kit: Any) -> None:
    file = kit.save(tmp_path, kit.state("rtdetrv2"))
    assert "this is no rtdetr-r50, it looks like rtdetrv2-r18: write --detector rtdetrv2-r18" in refusal(
        "rtdetr-r50", file
    )
    message = refusal("rtdetrv2-r34", file)
    assert "these are rtdetrv2-r18's, not rtdetrv2-r34's: write --detector rtdetrv2-r18" in message
    linear = kit.save(tmp_path, torch.nn.Linear(2, 2).state_dict())
    assert "is it a checkpoint of RT-DETR, ResNet-18" in (message := refusal("rtdetr-r18", linear))
    assert "2 weights (weight, bias), but no backbone.conv1.conv1_1.conv.weight" in message


def test_deimv2_and_dfine_share_a_backbone_and_are_told_apart(tmp_path: Path, kit: Any) -> None:
    lite = kit.save(tmp_path, kit.state("deimv2-lite"))
    assert "this is no dfine-n, it looks like deimv2-atto: write --detector deimv2-atto" in refusal("dfine-n", lite)
    assert "these are deimv2-atto's, not deimv2-pico's" in refusal("deimv2-pico", lite)
    state = kit.state("deimv2")
    del state["decoder.decoder.layers.1.swish_ffn.w12.bias"], state["decoder.dec_bbox_head.1.layers.0.weight"]
    message = refusal("deimv2-s", kit.save(tmp_path, state | {"decoder.enc_output.proj.bias": torch.zeros(32)}))
    assert "lacks 2 of " in message and "has 1 unexpected (decoder.enc_output.proj.bias)" in message
    dfine = refusal("deimv2-s", kit.save(tmp_path, kit.state("dfine")))
    assert "this is no deimv2-s, it looks like dfine-s or deim-dfine-s" in dfine


class _RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def test_a_file_that_would_run_code_is_refused_unrun(tmp_path: Path, kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = kit.save(tmp_path, {"a": torch.zeros(1), "b": _RunsCode()})
    assert "would call `posix.system`" in refusal("rtdetr-r50", file)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("place", ["ema.module", "model", ""])
def test_weights_are_found_wherever_training_code_puts_them(tmp_path: Path, kit: Any, place: str) -> None:
    file = kit.save(tmp_path, {f"module.{name}": each for name, each in kit.state("rtdetrv2").items()}, place)
    extra = {"decoder.anchors": torch.zeros(1, 336, 4), "backbone.total_ops": torch.zeros(1)}
    content = torch.load(file)
    inner = content
    for key in place.split(".") if place else []:
        inner = inner[key]
    inner |= extra | {"encoder.lateral_convs.0.norm.num_batches_tracked": torch.tensor(7)}
    inner["decoder.denoising_class_embed.weight"] = torch.zeros(4, 32)
    torch.save(content, file)
    detector = load_detector("rtdetrv2-r18", weights=file)
    assert detector.spec.name == "rtdetrv2-r18" and detector.spec.num_labels == 3
    assert detector.spec.label_names is None, "three labels of unknown names"


def test_the_average_over_training_is_preferred(tmp_path: Path, kit: Any) -> None:
    state = kit.state("rtdetrv2") | {"decoder.anchors": torch.zeros(1, 336, 4)}
    raw = {name: torch.zeros_like(each) for name, each in state.items()}
    torch.save({"model": raw, "ema": {"module": state, "updates": 9}, "last_epoch": 3}, tmp_path / "both.pth")
    detector: Any = load_detector("rtdetrv2-r18", weights=tmp_path / "both.pth")
    weight = detector.model.model.enc_output[0].weight
    assert torch.equal(weight, state["decoder.enc_output.proj.weight"])
    assert weight.dtype == torch.float32 and not weight.requires_grad


def test_eighty_labels_are_cocos(tmp_path: Path, kit: Any) -> None:
    state = kit.state("rtdetrv2") | {"decoder.anchors": torch.zeros(1, 336, 4)}
    for name, tensor in list(state.items()):
        if "score_head" in name:
            state[name] = torch.zeros(80, *tensor.shape[1:])
    names = load_detector("rtdetrv2-r18", weights=kit.save(tmp_path, state)).spec.label_names
    assert names is not None and len(names) == 80
    assert (names[0], names[11], names[79]) == ("person", "stop sign", "toothbrush")


def test_ninety_one_labels_are_cocos_ids(tmp_path: Path, kit: Any) -> None:
    state = kit.state("rfdetr")
    for name, tensor in list(state.items()):
        if "class_embed" in name:
            state[name] = torch.zeros(91, *tensor.shape[1:])
    file = kit.save(tmp_path, state, "model", kit.small["rfdetr"].arguments)
    names = load_detector("rfdetr-nano", weights=file).spec.label_names
    assert names is not None and len(names) == 80 and not {0, 12} & set(names)
    assert (names[1], names[13], names[90]) == ("person", "stop sign", "toothbrush")


def test_an_input_that_is_no_square_is_refused(tmp_path: Path, kit: Any) -> None:
    state = kit.state("rtdetrv2") | {"decoder.anchors": torch.zeros(1, 168, 4)}
    assert "168 anchors are those of no square input" in refusal("rtdetrv2-r18", kit.save(tmp_path, state))


def test_a_smaller_evaluated_decoder_leaves_the_further_layers_out(
    tmp_path: Path, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BY_NAME, "rtdetr-r18", replace(BY_NAME["rtdetr-r18"], evaluated=1))
    state = kit.state("rtdetr") | {"decoder.anchors": torch.zeros(1, 336, 4)}
    detector: Any = load_detector("rtdetr-r18", weights=kit.save(tmp_path, state))
    assert detector.model.config.decoder_layers == 1
    head = detector.model.model.decoder.class_embed[0].weight
    assert torch.equal(head, state["decoder.dec_score_head.0.weight"])


def test_names_are_known_and_need_weights() -> None:
    assert sorted(BY_NAME) == sorted(CONVERTED) and sorted(NAMED) == sorted(OFFICIAL)
    with pytest.raises(UserError, match="rtdetr-r50 needs its checkpoint: add --weights FILE"):
        load_detector("rtdetr-r50")
