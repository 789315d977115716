"""From a `Model` to an exported folder."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from frozen_cache.cache.attributes import detector_fingerprint
from frozen_cache.detectors.finer import FinerDetector
from frozen_cache.detectors.output import FrozenDetector
from frozen_cache.detectors.run import run_detector
from frozen_cache.errors import UserError
from frozen_cache.export.manifest import DETECTOR, DETECTOR_FILES, HEAD, MANIFEST, WEIGHTS, Manifest, file_facts
from frozen_cache.inference.model import Model

if TYPE_CHECKING:
    from frozen_cache.detectors.hf.detector import TransformersDetector

ONE_FILE = "1000GB"


def write_folder(folder: Path, model: Model, *, cache_fingerprint: str, license: str) -> Manifest:
    """Put a model's parts and their record into an empty folder.

    Args:
        model: on the CPU.
        cache_fingerprint: of the cache that the head was trained from.
        license: its name, as the user gives it.

    Raises:
        UserError: a detector that is code of the user's own, which no folder can hold.
    """
    (folder / DETECTOR).mkdir(parents=True)
    inner = model.detector.detector if isinstance(model.detector, FinerDetector) else model.detector
    own = _save_detector(inner, folder / DETECTOR)
    save_file({name: tensor.contiguous() for name, tensor in model.head.state_dict().items()}, folder / HEAD)
    names = [HEAD, *(f"{DETECTOR}/{name}" for name in DETECTOR_FILES[own["kind"]])]
    manifest = Manifest(
        made_by=version("frozen-cache"),
        spec=model.detector.spec,
        detector_fingerprint=detector_fingerprint(model.detector.spec),
        head=model.head.config,
        inputs=model.head.inputs,
        encoder_layer=model.encoder_layer,
        categories=model.categories,
        label_to_category=model.label_to_category,
        top_k=model.top_k,
        autocast=model.autocast,
        kept=model.kept,
        cache_fingerprint=cache_fingerprint,
        license=license,
        files={name: file_facts(folder / name) for name in names},
        **own,
    )
    (folder / MANIFEST).write_text(json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n")
    return manifest


def _save_detector(detector: FrozenDetector, place: Path) -> dict[str, Any]:
    """Write `detector/`; the fields of the record that are its own."""
    from frozen_cache.detectors.hf.detector import TransformersDetector
    from frozen_cache.detectors.official import OfficialDetector

    if isinstance(detector, TransformersDetector):
        save_transformers(detector, place)
        return {"kind": "transformers", "backbone_strides": detector.backbone_strides}
    if isinstance(detector, OfficialDetector):
        from frozen_cache.detectors.official.export import save_weights

        save_weights(detector, place / WEIGHTS)
        return {"kind": "official", "queries": detector.model.config.queries}
    raise UserError(
        f"the detector {detector.spec.name} is code of your own ({type(detector).__name__}), which no folder can hold: "
        "hand on the run with the factory's file (--detector FILE.py:FACTORY), or let FACTORY return "
        "(transformers model, image processor)"
    )


def save_transformers(detector: TransformersDetector, place: Path) -> None:
    """Write a folder that `load_pretrained` reads."""
    from frozen_cache.detectors.hf.pretrained import quiet

    model: Any = detector.model
    with quiet():
        model.save_pretrained(place, max_shard_size=ONE_FILE)
        detector.processor.save_pretrained(place)
    for entry in place.iterdir():
        if entry.name not in DETECTOR_FILES["transformers"]:
            entry.unlink()


@torch.inference_mode()
def agree(detector: FrozenDetector, other: FrozenDetector) -> bool:
    """Whether two detectors on the CPU give the same on a picture of noise."""
    rule = detector.spec.input
    height, width = rule.resized_size(height=240, width=320)
    pixels = torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    scale = detector.spec.backbone_scale
    finer = None if scale == 1 else pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    here, there = (run_detector(each, pixels, finer, device=torch.device("cpu")) for each in (detector, other))
    pairs = [(here.queries, there.queries), (here.boxes, there.boxes), (here.scores, there.scores)]
    for layer, levels in here.encoder.items():
        pairs += zip(levels, there.encoder[layer], strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def check_same(model: Model, again: Model, folder: Path) -> None:
    """UserError where a model and what was read back from its folder differ on a picture of noise."""
    state, other = model.head.state_dict(), again.head.state_dict()
    if not agree(model.detector, again.detector) or any(not torch.equal(state[key], other[key]) for key in state):
        raise UserError(
            f"the detector {model.detector.spec.name} read back from {folder} gives other outputs, as its factory "
            "changes more than weights: hand on the run with the factory's file instead"
        )
