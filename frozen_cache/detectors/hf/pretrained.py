"""Loading `hf:DIR_OR_HUB_ID`. Nothing is executed or fetched that the user did not name."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from frozen_cache.detectors.hf.activation import apply_head_activation
from frozen_cache.detectors.hf.as_published import apply_as_published, lacks
from frozen_cache.detectors.hf.detector import TransformersDetector
from frozen_cache.detectors.hf.families import FAMILIES
from frozen_cache.detectors.hf.restore import restore_weights, weight_files
from frozen_cache.detectors.place import check_place, folder_of
from frozen_cache.errors import UserError, one_line
from frozen_cache.pointer_file import pointer_file

NOT_NEEDED = re.compile(r"num_batches_tracked$|denoising_class_embed")
"""Keys whose absence or presence changes no output: a counter of batch norm, the noisy labels of training."""
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def load_pretrained(
    source: str,
    *,
    encoder_layers: tuple[int, ...] | None = None,
    backbone_strides: tuple[int, ...] = (),
    backbone_scale: int = 1,
) -> TransformersDetector:
    """The detector in a folder that `save_pretrained` wrote, or under a hub id (`org/name`).

    A folder is read with `local_files_only`. Only what looks like a hub id, and whose first part is no folder here, may
    be downloaded: a mistyped path is an error, not a look-up.
    Weights load from safetensors, or with `weights_only=True`; `trust_remote_code` is never set.

    Raises:
        UserError: no such folder, no config, processor or weights in it, not a known family, keys that do not fit.
    """
    found = find_pretrained(source)
    place, local, config = found.place, found.local, found.config
    if config.model_type not in FAMILIES:
        raise UserError(f"hf:{source} is a {config.model_type} model; the families known are {', '.join(FAMILIES)}")
    # Other files of this kind may lie beside a pytorch_model.bin: only the names that are loaded count.
    safetensors = not local or any((Path(place) / name).is_file() for name in WEIGHTS if "safetensors" in name)
    with quiet():
        model = _load_model(source, place, config, {**found.options, "use_safetensors": safetensors})
        processor = _load_processor(source, place, found.options)
    restore_weights(model, weight_files(place, local=local))
    apply_as_published(model)
    apply_head_activation(model)
    return TransformersDetector(
        model,
        processor,
        name=found.name,
        encoder_layers=encoder_layers,
        backbone_strides=backbone_strides,
        backbone_scale=backbone_scale,
    )


@dataclass(frozen=True)
class Found:
    """A model of transformers that is there, or is to be downloaded, and its configuration."""

    source: str
    place: str
    """Folder, or hub id."""
    local: bool
    config: Any

    @property
    def options(self) -> dict[str, Any]:
        """With which all of it is read."""
        return _options(local=self.local)

    @property
    def name(self) -> str:
        """As the user gave it, of a folder its own name alone."""
        return f"hf:{Path(self.place).resolve().name if self.local else self.source}"


def find_pretrained(source: str, *, processor: tuple[str, ...] = ("preprocessor_config.json",)) -> Found:
    """Where transformers is to read a model: a folder with all that it needs, or a hub id.

    Args:
        processor: names of the file that tells how images are prepared.
    """
    from transformers import AutoConfig

    folder = folder_of(source)
    if folder is not None:
        check_place(f"hf:{source}")
        _check_folder(folder, source, processor)
    place, local = source if folder is None else str(folder), folder is not None
    try:
        config = AutoConfig.from_pretrained(place, **_options(local=local))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"hf:{source}: cannot read its config.json: {one_line(error)}") from error
    return Found(source, place, local, config)


def _options(*, local: bool) -> dict[str, Any]:
    return {"local_files_only": local, "trust_remote_code": False}


def _check_folder(folder: Path, source: str, processor: tuple[str, ...]) -> None:
    """A UserError says what of a saved model the folder lacks."""
    for names, what in (
        (("config.json",), "config"),
        (processor, "image processor"),
        (WEIGHTS, "weights"),
    ):
        if not any((folder / name).is_file() for name in names):
            raise UserError(f"hf:{source}: no {what} in {folder}; expected {' or '.join(names[:3])}")
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        with path.open("rb") as file:
            pointer = pointer_file(file.read(64))
        if pointer is not None:
            raise UserError(f"hf:{source}: {path} is {pointer}")


def _load_model(source: str, place: str, config: Any, options: dict[str, Any]) -> Any:
    from transformers import AutoModelForObjectDetection

    try:
        model, info = AutoModelForObjectDetection.from_pretrained(
            place,
            config=config,
            dtype=torch.float32,
            weights_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # what a broken file raises is the reader's own business
        raise UserError(f"hf:{source}: cannot load its weights: {one_line(error)}") from error
    problems = {
        "missing": sorted(key for key in info.get("missing_keys", ()) if not lacks(config, key)),
        "unexpected": sorted(info.get("unexpected_keys", ())),
        "of another shape": sorted(str(entry[0]) for entry in info.get("mismatched_keys", ())),
    }
    kept = {what: [key for key in keys if not NOT_NEEDED.search(key)] for what, keys in problems.items()}
    wrong = [f"{len(keys)} keys {what} ({_listed(keys)})" for what, keys in kept.items() if keys]
    if wrong:
        raise UserError(f"hf:{source}: the weights do not fit its config: {'; '.join(wrong)}")
    return model


def _load_processor(source: str, place: str, options: dict[str, Any]) -> Any:
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(place, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"hf:{source}: cannot read its image processor: {one_line(error)}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and warnings: what matters in them becomes a UserError here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _listed(keys: list[str], most: int = 3) -> str:
    return ", ".join(keys[:most]) + (" ..." if len(keys) > most else "")
