"""The paper's detectors, inference only, from their official checkpoints: H-Deformable-DETR and DINO."""

from frozen_cache.detectors.official.detector import OfficialDetector
from frozen_cache.detectors.official.named import NAMED, NamedDetector, load_official

__all__ = ["NAMED", "NamedDetector", "OfficialDetector", "load_official"]
