"""From an exported folder to a `Model`, nothing in it being trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from frozen_cache.cache.attributes import detector_fingerprint
from frozen_cache.detectors.finer import at_scale
from frozen_cache.detectors.output import FrozenDetector
from frozen_cache.errors import UserError
from frozen_cache.export.head import load_exported_head
from frozen_cache.export.manifest import DETECTOR, WEIGHTS, Manifest, read_manifest, read_small
from frozen_cache.inference.model import Model

CODE = ("auto_map", "custom_pipelines", "quantization_config", "use_kernels", "use_pretrained_backbone")
"""Keys of a configuration that would bring in code or other files."""
MOST_LAYERS = 1000


def load_folder(folder: Path) -> Model:
    """The model in an exported folder, on the CPU. Nothing is fetched and nothing in the folder is executed.

    Raises:
        UserError: the folder is not as it was exported, or its parts do not fit together.
    """
    manifest = read_manifest(folder)
    head = load_exported_head(folder, manifest)
    detector = _transformers(folder, manifest) if manifest.kind == "transformers" else _official(folder, manifest)
    if detector_fingerprint(detector.spec) != manifest.detector_fingerprint:
        raise UserError(
            f"the detector in {folder} is not the one that its head was trained on; another version of transformers "
            "may build it differently: install the one that the model card names"
        )
    return Model(
        detector=detector,
        head=head,
        encoder_layer=manifest.encoder_layer,
        categories=manifest.categories,
        label_to_category=manifest.label_to_category,
        top_k=manifest.top_k,
        autocast=manifest.autocast,
        kept=manifest.kept,
    )


def _transformers(folder: Path, manifest: Manifest) -> FrozenDetector:
    from frozen_cache.detectors.hf.pretrained import load_pretrained

    place = folder / DETECTOR
    for name in ("config.json", "preprocessor_config.json"):
        _check_plain(place / name)
    _check_size(place)
    return load_pretrained(
        str(place.resolve()),
        encoder_layers=manifest.spec.encoder_layers,
        backbone_strides=manifest.backbone_strides,
        backbone_scale=manifest.spec.backbone_scale,
    )


def _official(folder: Path, manifest: Manifest) -> FrozenDetector:
    from frozen_cache.detectors.official.export import load_exported

    detector = load_exported(
        manifest.spec.name,
        folder / DETECTOR / WEIGHTS,
        queries=manifest.queries,
        encoder_layers=manifest.spec.encoder_layers,
        top_k=manifest.spec.top_k,
    )
    return at_scale(detector, manifest.spec.backbone_scale)


def _check_plain(path: Path) -> None:
    """UserError where a configuration asks for code, for other files, or for more layers than anything has."""
    try:
        content = json.loads(read_small(path))
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not JSON") from None

    def look(key: str, value: Any) -> None:
        if key in CODE and value:
            raise UserError(f"{path} asks for code or files from elsewhere (`{key}`): refused")
        if isinstance(value, dict):
            for name, inner in value.items():
                look(name, inner)
        elif isinstance(value, list):
            for inner in value:
                look(key, inner)
        elif (key.strip("_").startswith("attn_implementation") and "/" in str(value)) or (
            isinstance(value, str) and value.startswith(("hf-hub:", "hf_hub:", "local-dir:", "http:", "https:"))
        ):
            raise UserError(f"{path} asks for code or files from elsewhere (`{key}`): refused")
        elif isinstance(value, int) and value > MOST_LAYERS and ("layers" in key or "depth" in key):
            raise UserError(f"{path} asks for {value} `{key}`: refused")

    look("", content)


def _check_size(place: Path) -> None:
    """UserError where the configuration describes a model that is much larger than its weights."""
    from transformers import AutoConfig, AutoModelForObjectDetection

    try:
        config = AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForObjectDetection.from_config(config, trust_remote_code=False)
    except Exception as error:  # what a wrong configuration raises is the library's own business
        raise UserError(
            f"{place / 'config.json'} describes no detector: {' '.join(str(error).split())[:200]}"
        ) from None
    described = sum(parameter.numel() for parameter in model.parameters()) * 4
    if described > 2 * (place / WEIGHTS).stat().st_size + (1 << 20):
        raise UserError(f"{place / 'config.json'} describes {described} bytes of weights, its file holds far fewer")
