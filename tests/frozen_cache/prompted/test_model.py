"""Prompted models give what transformers' own processor and model give for one box at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

from frozen_cache.demo import DETECTOR_DIR
from frozen_cache.errors import UserError
from frozen_cache.prompted import model as module
from frozen_cache.prompted.model import PromptedModel, load_prompted

from . import small_models

BOXES = np.array([[3, 4, 20, 30], [10, 10, 50, 35.5], [0, 0, 60, 40]], dtype=np.float32)
CPU = torch.device("cpu")


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def asked(model: PromptedModel, image: Image.Image, boxes: np.ndarray) -> tuple[Tensor, Tensor]:
    logits, iou = zip(*model(image, boxes), strict=True)
    return torch.cat(logits), torch.cat(iou)


@pytest.mark.parametrize(
    ("save", "classes"),
    [
        (small_models.sam, ("SamModel", "SamProcessor")),
        (partial(small_models.sam, family="SamHQ"), ("SamHQModel", "SamHQProcessor")),
        (small_models.sam2, ("Sam2Model", "Sam2Processor")),
        (small_models.sam2_video, ("Sam2Model", "Sam2Processor")),
    ],
)
@pytest.mark.parametrize("at_once", [16, 2])
def test_it_equals_transformers_own_path(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    save: Callable[[Path], Path],
    classes: tuple[str, str],
    at_once: int,
) -> None:
    folder = save(tmp_path / "model")
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", at_once * 40 * 60)
    found, iou = asked(load_prompted(f"hf:{folder}", device=CPU), picture(), BOXES)
    assert found.shape == (3, 40, 60) and found.dtype == iou.dtype == torch.float32
    kinds = [getattr(transformers, name) for name in classes]
    own, processor = kinds[0].from_pretrained(folder).eval(), kinds[1].from_pretrained(folder)
    for box, logits, predicted in zip(BOXES, found, iou, strict=True):
        inputs: Any = processor(images=picture(), input_boxes=[[box.tolist()]], return_tensors="pt")
        sizes = [inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
        inputs["input_boxes"] = inputs["input_boxes"].float()
        with torch.no_grad():
            output = own(**{name: inputs[name] for name in ("pixel_values", "input_boxes")}, multimask_output=False)
        [mask] = processor.post_process_masks(output.pred_masks, *sizes)
        assert 0 < mask.float().mean() < 1
        assert torch.equal(mask[0, 0], logits > 0)
        torch.testing.assert_close(output.iou_scores.flatten()[0], predicted)


def test_a_picture_is_encoded_once_and_the_next_one_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_prompted(f"hf:{small_models.sam(tmp_path / 'model')}", device=CPU)
    encode, calls = model._model.get_image_embeddings, []
    monkeypatch.setattr(model._model, "get_image_embeddings", lambda pixels: (calls.append(1), encode(pixels))[1])
    one, other = picture(), Image.new("RGB", (60, 40), (200, 30, 30))
    first = asked(model, one, BOXES)[0]
    assert torch.allclose(asked(model, one, BOXES[1:])[0], first[1:])
    assert len(calls) == 1
    assert not torch.allclose(asked(model, other, BOXES)[0], first) and len(calls) == 2
    assert not list(model(other, BOXES[:0]))


def test_what_it_says_of_itself(tmp_path: Path) -> None:
    folder = small_models.sam(tmp_path / "tiny-sam")
    model = load_prompted(f"hf:{folder}", device=CPU)
    own = transformers.SamModel.from_pretrained(folder)
    assert model.name == "hf:tiny-sam" and model.parameters == sum(each.numel() for each in own.parameters())
    with (folder / "model.safetensors").open("ab") as file:
        before = model.sha256
        file.write(b"")
    assert load_prompted(f"hf:{folder}", device=CPU).sha256 == before
    torch.manual_seed(5)
    transformers.SamModel(own.config).save_pretrained(folder)
    assert load_prompted(f"hf:{folder}", device=CPU).sha256 != before


def test_a_folder_of_older_transformers_loads(tmp_path: Path) -> None:
    folder = small_models.sam(tmp_path / "model")
    there = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    wanted = asked(load_prompted(f"hf:{folder}", device=CPU), picture(), BOXES)[0]
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(there | {"processor_class": "SamProcessor"}))
    state = transformers.SamModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert torch.equal(asked(load_prompted(f"hf:{folder}", device=CPU), picture(), BOXES)[0], wanted)


def test_what_is_no_such_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a \w+ model, none that makes masks of boxes: known are sam, "):
        load_prompted(f"hf:{DETECTOR_DIR}", device=CPU)
    with pytest.raises(UserError, match="does not exist; give a folder"):
        load_prompted(f"hf:{tmp_path / 'none'}", device=CPU)
    folder = small_models.sam(tmp_path / "model")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights in"):
        load_prompted(f"hf:{folder}", device=CPU)
    (folder / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_prompted(f"hf:{folder}", device=CPU)
    state = transformers.SamModel(transformers.AutoConfig.from_pretrained(folder)).state_dict()
    kept = {name: value for name, value in state.items() if not name.startswith("mask_decoder.iou_token")}
    transformers.SamModel(transformers.AutoConfig.from_pretrained(folder)).save_pretrained(folder, state_dict=kept)
    with pytest.raises(UserError, match=r"1 of its weights are missing, the first is mask_decoder\.iou_token"):
        load_prompted(f"hf:{folder}", device=CPU)
