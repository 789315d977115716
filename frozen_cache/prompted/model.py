"""Loading a prompted model, and asking it: boxes in, masks out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from frozen_cache.detectors.hf.pretrained import find_pretrained, quiet
from frozen_cache.detectors.hf.restore import weight_files
from frozen_cache.errors import UserError, one_line

PROCESSORS = {
    "sam": "SamProcessor",
    "sam_hq": "SamHQProcessor",
    "sam2": "Sam2Processor",
    "sam2_video": "Sam2Processor",
    "edgetam": "Sam2Processor",
    "edgetam_video": "Sam2Processor",
    "sam3_tracker": "Sam3TrackerProcessor",
    "sam3_video": "Sam3TrackerProcessor",
}
"""Model type of a config -> transformers' processor of images with boxes."""
AT_ONCE = 16
"""Boxes that go through the mask decoder together, at most."""
LOGITS_AT_ONCE = 1 << 26
"""Of masks at the size of the picture: 256 MB."""


class Prompter(Protocol):
    """Gives a mask to each box of a picture."""

    name: str
    """Of the model, for people."""
    sha256: str
    """Of its weights."""
    parameters: int
    """Their number."""

    def __call__(self, picture: Image.Image, boxes: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """The masks of N boxes, some at a time.

        Args:
            picture: RGB.
            boxes: (N, 4) float32 xyxy in its pixels.

        Yields:
            (n, H, W) float32 logits at the picture's size, and (n,) float32 predicted IoU, on the CPU.
        """
        ...


class PromptedModel:
    """A model of transformers as a `Prompter`. A picture that is asked about again, the same object, is encoded once.

    Args:
        model, processor: transformers' own.
        name: for people.
        sha256: of the weights.
        device: where it runs, in float32.
    """

    def __init__(self, model: Any, processor: Any, *, name: str, sha256: str, device: torch.device) -> None:
        self._model, self._processor, self._device = model.to(device).eval().requires_grad_(False), processor, device
        self.name, self.sha256 = name, sha256
        self.parameters = sum(each.numel() for each in model.parameters())
        self._encoded: tuple[Image.Image, dict[str, Any]] | None = None

    @torch.inference_mode()
    def __call__(self, picture: Image.Image, boxes: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Prompter`."""
        if not len(boxes):
            return
        inputs = self._processor(images=picture, input_boxes=[boxes.tolist()], return_tensors="pt")
        sizes = [inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
        encoded = self._encode(picture, inputs["pixel_values"])
        prompts = inputs["input_boxes"].to(self._device, torch.float32)
        step = max(1, min(AT_ONCE, LOGITS_AT_ONCE // (picture.height * picture.width)))
        for start in range(0, len(boxes), step):
            output = self._model(input_boxes=prompts[:, start : start + step], multimask_output=False, **encoded)
            [logits] = self._processor.post_process_masks(output.pred_masks.float().cpu(), *sizes, binarize=False)
            yield logits[:, 0], output.iou_scores[0, :, 0].float().cpu()

    def _encode(self, picture: Image.Image, pixel_values: Tensor) -> dict[str, Any]:
        """What the mask decoder reads of a picture, by the names of the model's arguments."""
        if self._encoded is None or self._encoded[0] is not picture:
            found: Any = self._model.get_image_embeddings(pixel_values.to(self._device))
            names = ("image_embeddings", "intermediate_embeddings")
            parts = found if isinstance(found, tuple) else (found,)
            self._encoded = picture, dict(zip(names, parts, strict=False))
        return self._encoded[1]


def load_prompted(source: str, *, device: torch.device) -> PromptedModel:
    """The model `hf:DIR_OR_HUB_ID`: a folder that `save_pretrained` wrote, or a hub id (`org/name`).

    What may be downloaded or executed is as for detectors (`load_pretrained`).

    Raises:
        UserError: no such folder, no model of a kind that is known, or weights that do not fit.
    """
    from transformers import AutoModelForMaskGeneration

    if not source.startswith("hf:"):
        raise UserError(f"{source} is no model of transformers: give hf:FOLDER, or hf:ORG/NAME of a model hub")
    source = source.removeprefix("hf:")
    found = find_pretrained(source, processor=("processor_config.json", "preprocessor_config.json"))
    place, config, options = found.place, found.config, found.options
    if config.model_type not in PROCESSORS:
        raise UserError(
            f"hf:{source} is a {config.model_type} model, none that makes masks of boxes: known are "
            f"{', '.join(PROCESSORS)}"
        )
    with quiet():
        try:
            model, info = AutoModelForMaskGeneration.from_pretrained(
                place, config=config, dtype=torch.float32, weights_only=True, output_loading_info=True, **options
            )
            processor = _processor(config.model_type).from_pretrained(place, **options)
        except Exception as error:  # what a broken file raises is the reader's own business
            raise UserError(f"hf:{source}: cannot be loaded: {one_line(error)}") from error
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"hf:{source}: {len(missing)} of its weights are missing, the first is {missing[0]}")
    sha256 = _sha256(weight_files(place, local=found.local))
    return PromptedModel(model, processor, name=found.name, sha256=sha256, device=device)


def _processor(model_type: str) -> Any:
    import transformers

    return getattr(transformers, PROCESSORS[model_type])


def _sha256(files: list[Path]) -> str:
    """Of the files' contents, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while part := file.read(1 << 24):
                digest.update(part)
    return digest.hexdigest()
