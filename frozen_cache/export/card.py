"""The model card of an exported folder: what it is, what made it, how to use it."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from frozen_cache.evaluation.coco import METRICS
from frozen_cache.export.manifest import HEAD, Manifest
from frozen_cache.printable import printable
from frozen_cache.training.run_directory import RunDirectory, RunRecord

CARD = "README.md"


def trained_metrics(checkpoint: Path) -> dict[str, dict[str, float]] | None:
    """COCO metrics, by kind, of the evaluation behind a run's checkpoint: the best one for `best`, else the last.

    None where the run was not evaluated.
    """
    run = RunDirectory(checkpoint.parent)
    if not run.metrics_file.is_file():
        return None
    found = [line["val"] for line in run.metrics() if "val" in line]
    if checkpoint == run.best:
        return max(found, key=lambda metrics: metrics["segm"]["AP"], default=None)
    return found[-1] if found else None


def model_card(manifest: Manifest, record: RunRecord, metrics: dict[str, dict[str, float]] | None) -> str:
    """Markdown, with the front matter that model hubs read."""
    names = [category["name"] for category in manifest.categories]
    source = record.source
    data = "not recorded" if source is None else f"{source.annotations}, {source.images} images"
    if source is not None and source.masks_from:
        data += f"; masks made from boxes by {', '.join(map(str, source.masks_from))}"
    spec = manifest.spec
    rows = [
        ("detector", f"{spec.name} ({spec.family}), frozen"),
        ("detector's weights", f"sha256 {spec.weights_sha256}"),
        ("detector's fingerprint", manifest.detector_fingerprint),
        ("mask head", f"sha256 {manifest.files[HEAD].sha256} ({HEAD})"),
        ("trained on", data),
        ("data fingerprint", "not recorded" if source is None else source.data_fingerprint),
        ("cache fingerprint", manifest.cache_fingerprint),
        (
            "made by",
            f"frozen-cache {manifest.made_by}, torch {version('torch')}, transformers {version('transformers')}",
        ),
        ("license", manifest.license),
    ]
    recipe = json.dumps(record.config.model_dump(mode="json"), indent=2)
    return f"""---
library_name: frozen-cache
pipeline_tag: image-segmentation
tags: [instance-segmentation, {spec.family}]
license: {json.dumps(manifest.license)}
---

# Instance segmentation: {spec.name} with a mask head

A frozen detector and the mask head that was trained on its outputs. It finds {len(names)} classes:
{", ".join(map(_text, names))}.

## Use

```sh
frozen-cache predict --model THIS_FOLDER pictures/ --out masks
```

```python
from frozen_cache import InstanceSegmenter

segmenter = InstanceSegmenter.load("THIS_FOLDER")
instances = segmenter("picture.jpg")
instances.masks, instances.boxes, instances.names, instances.scores
```

Nothing is downloaded, and nothing in this folder is executed.

## Results

{_results(metrics)}

## What made it

| | |
|---|---|
{chr(10).join(f"| {name} | {_cell(value)} |" for name, value in rows)}

## Recipe

```json
{recipe}
```
"""


def _results(metrics: dict[str, dict[str, float]] | None) -> str:
    if metrics is None:
        return "Not evaluated while it was trained."
    lines = ["| | " + " | ".join(METRICS) + " |", "|---|" + "---|" * len(METRICS)]
    for kind, title in (("segm", "masks"), ("bbox", "boxes")):
        lines.append(f"| {title} | " + " | ".join(f"{metrics[kind][name]:.3f}" for name in METRICS) + " |")
    return "COCO metrics on the validation cache of the training, in 0..1:\n\n" + "\n".join(lines)


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _text(text: str) -> str:
    """In one line, and no HTML."""
    return printable(" ".join(text.split())).replace("<", "&lt;")
