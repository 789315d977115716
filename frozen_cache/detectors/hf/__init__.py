"""Detectors of transformers: the families, the adapter, the input rule of an image processor, loading."""

from frozen_cache.detectors.hf.detector import TransformersDetector
from frozen_cache.detectors.hf.families import FAMILIES, Family
from frozen_cache.detectors.hf.input_rule import rule_from_processor
from frozen_cache.detectors.hf.pretrained import load_pretrained

__all__ = ["FAMILIES", "Family", "TransformersDetector", "load_pretrained", "rule_from_processor"]
