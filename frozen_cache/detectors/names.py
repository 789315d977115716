"""The detectors that go by name with `--weights`, without torch; what loads each stands beside its family."""

from __future__ import annotations

OFFICIAL = ("dino-focalnet-l", "dino-r50", "dino-swin-l", "hdetr-r50", "hdetr-swin-l", "hdetr-swin-t")
"""The paper's: `official.NAMED`."""
CONVERTED = (
    *(f"{family}-{size}" for size in ("r18", "r34", "r50", "r50-m", "r101") for family in ("rtdetr", "rtdetrv2")),
    *(f"{family}-{size}" for size in "nsmlx" for family in ("dfine", "deim-dfine")),
    *(f"deimv2-{size}" for size in ("atto", "femto", "pico", *"nsmlx")),
    *("ultralytics-rtdetr-l", "ultralytics-rtdetr-x"),
    *(f"rfdetr-{size}" for size in ("nano", "small", "medium", "base", "large")),
)
"""Transformers models from official checkpoints: `hf.official_keys.named.BY_NAME`."""
NAMES = (*OFFICIAL, *CONVERTED)
FORMS = "a name (`frozen-cache detectors` lists them), or hf:DIR_OR_HUB_ID, or FILE.py:FACTORY"
"""What `--detector` takes."""
