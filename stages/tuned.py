"""The detector that was trained along with a head, beside it in the run: loadable as any other."""

from __future__ import annotations

import shutil
from pathlib import Path

from frozen_cache.detectors.hf.detector import TransformersDetector
from frozen_cache.detectors.hf.pretrained import load_pretrained
from frozen_cache.detectors.official.detector import OfficialDetector
from frozen_cache.detectors.official.export import save_weights
from frozen_cache.detectors.output import FrozenDetector
from frozen_cache.detectors.tuning import TunableDetector, with_weights
from frozen_cache.errors import UserError
from frozen_cache.export.manifest import DETECTOR, WEIGHTS
from frozen_cache.export.write import agree, save_transformers
from frozen_cache.progress import say
from frozen_cache.training.checkpoint import load_checkpoint
from frozen_cache.training.trained_head import checkpoint_of


def save_tuned(detector: TunableDetector, run: Path) -> str:
    """Write the detector of the checkpoint that `load_head` takes into `run`/detector, in place of an earlier one.

    Args:
        detector: any weights that are not in the checkpoint are its own.

    Returns:
        The options that load it; empty where only the run itself does.
    """
    weights, _ = load_checkpoint(checkpoint_of(run), prefix="detector.")
    tuned = with_weights(detector, weights).to("cpu")
    place, aside = run / DETECTOR, run / f".{DETECTOR}.aside"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    if isinstance(tuned, OfficialDetector):
        save_weights(tuned, aside / WEIGHTS)
        options = f"--detector {tuned.spec.name} --weights {place / WEIGHTS}"
    elif isinstance(tuned, TransformersDetector):
        save_transformers(tuned, aside)
        options = f"--detector hf:{place}"
        if not _reads_back(tuned, aside):
            say(f"the factory of {tuned.spec.name} changes more than weights: the tuned detector is in the run alone")
            shutil.rmtree(aside)
            return ""
    shutil.rmtree(place, ignore_errors=True)
    aside.rename(place)
    return options


def _reads_back(detector: TransformersDetector, place: Path) -> bool:
    try:
        again: FrozenDetector = load_pretrained(
            str(place.resolve()),
            encoder_layers=detector.spec.encoder_layers,
            backbone_strides=detector.backbone_strides,
        )
    except UserError:
        return False
    return agree(detector, again)
