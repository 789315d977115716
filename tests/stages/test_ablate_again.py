"""`ablate` given again: what was measured counts only where it is of these weights and this data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from frozen_cache.stages.ablate import ablate
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features


def test_an_ablation_measures_anew_what_was_measured_of_other_weights_or_other_data(fake, tmp_path, monkeypatch):
    cache, other = tmp_path / "cache.zarr", tmp_path / "other.zarr"
    for path, number in ((cache, 7), (other, 3)):
        images, annotations = fake.write_folder(tmp_path / path.stem, images=number)
        extract_features(detector=fake.uneven(), images=images, annotations=annotations, out=path)
    small: dict[str, Any] = {"head.width": 16, "head.roi_size": 8, "head.image_layers": 0, "head.box_layers": 1}
    small |= {"optim.batch_size": 4, "loss.points": 16}
    (tmp_path / "grid.toml").write_text("title = 'one'\n[[rows]]\nname = 'a'\n")
    evaluated = []
    monkeypatch.setattr(
        "frozen_cache.stages.ablate.evaluate",
        lambda **options: evaluated.append(options["cache"]) or evaluate(**options),
    )

    def measured(val_cache: Path, epochs: float) -> dict[str, Any]:
        made = ablate(
            cache=cache,
            val_cache=val_cache,
            grid=str(tmp_path / "grid.toml"),
            out=tmp_path / "out",
            overrides=small | {"optim.epochs": epochs},
        )
        results = tmp_path / "out" / "variants" / "00-a" / "results"
        metrics = json.loads((results / "metrics.json").read_text())
        assert made.rows[0]["AP"] == metrics["segm"]["AP"]
        return metrics["of"]

    first = measured(cache, 0.5)
    assert measured(cache, 0.5) == first and evaluated == [cache]
    assert measured(other, 0.5)["images"] == 3 and evaluated == [cache, other]
    longer = measured(other, 1)  # the variants are prolonged
    assert longer["sha256"] != first["sha256"] and evaluated == [cache, other, other]
    metrics = tmp_path / "out" / "variants" / "00-a" / "results" / "metrics.json"
    metrics.unlink()  # killed while it wrote what it had measured
    assert measured(other, 1) == longer
