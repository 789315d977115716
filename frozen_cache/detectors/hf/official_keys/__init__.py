"""Checkpoints of the official repositories, loaded into transformers' models: RT-DETR and its successors.

A family is one file: how its weights are called there, and how its sizes are read from the weights' shapes.
"""

from frozen_cache.detectors.hf.official_keys.loading import load_by_name
from frozen_cache.detectors.hf.official_keys.named import BY_NAME, NamedWeights

__all__ = ["BY_NAME", "NamedWeights", "load_by_name"]
