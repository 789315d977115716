"""The demo: scenes that are drawn on the spot and a small detector trained on them, both free of downloads."""

from pathlib import Path

from frozen_cache.demo.scenes import write_scenes

DETECTOR_DIR: Path = Path(__file__).parent / "detector"
"""A D-FINE detector of the transformers library, as `AutoModelForObjectDetection.from_pretrained` loads it."""

__all__ = ["DETECTOR_DIR", "write_scenes"]
