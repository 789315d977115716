"""The official modules' own outputs, typed in: weights that follow from official names, one small square image.

The figures were made by the official repositories' code. A weight that the table puts in another place gives others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from frozen_cache.detectors.hf.official_keys import load_by_name
from frozen_cache.detectors.hf.pretrained import load_pretrained

Figures = dict[str, tuple[float, tuple[float, ...]]]

# case -> (root mean square, six numbers at equal steps) of the scores and boxes
OFFICIAL: dict[str, Figures] = {
    "rtdetr": {
        "scores": (0.601734, (0.947769, 0.589947, 0.853924, 0.25287, 0.178539, 0.225072)),
        "boxes": (0.460806, (0.732686, 0.060588, 0.626837, 0.127518, 0.137672, 0.233284)),
    },
    "rtdetr-bottleneck": {
        "scores": (0.664515, (0.642998, 0.481483, 0.643401, 0.6212, 0.746079, 0.611506)),
        "boxes": (0.392885, (0.247542, 0.0509768, 0.799739, 0.186894, 0.0839093, 0.20108)),
    },
    "rtdetrv2": {
        "scores": (0.566979, (0.736022, 0.62608, 0.683732, 0.423017, 0.478686, 0.405844)),
        "boxes": (0.430116, (0.829815, 0.373082, 0.286381, 0.118037, 0.127274, 0.197594)),
    },
    "dfine": {
        "scores": (0.620588, (0.881249, 0.662243, 0.784228, 0.0988086, 0.0795509, 0.293041)),
        "boxes": (0.426176, (0.960491, 0.266571, 0.618026, 0.0296643, 0.0223045, 0.0445085)),
    },
    "deim-dfine": {
        "scores": (0.621878, (0.87073, 0.632551, 0.788743, 0.0987551, 0.0921821, 0.33729)),
        "boxes": (0.411106, (0.953805, 0.26895, 0.608709, 0.0283988, 0.0301547, 0.0371082)),
    },
    "deimv2": {
        "scores": (0.701059, (0.64412, 0.598995, 0.808437, 0.672528, 0.679794, 0.729176)),
        "boxes": (0.500035, (0.601543, 0.0500768, 0.00171477, 0.350696, 0.86472, 0.53523)),
    },
    "deimv2-lite": {
        "scores": (0.598871, (0.395087, 0.338932, 0.254013, 0.820449, 0.792906, 0.737622)),
        "boxes": (0.658393, (0.650065, 0.797468, 0.989212, 0.420616, 0.0220129, 0.150073)),
    },
    "ultralytics": {
        "scores": (0.611416, (0.727722, 0.711742, 0.657949, 0.833854, 0.775713, 0.70855)),
        "boxes": (0.41405, (0.278915, 0.934834, 0.617311, 0.041157, 0.0591035, 0.0472482)),
    },
    "rfdetr": {
        "scores": (0.39293, (0.384341, 0.291377, 0.410639, 0.5696, 0.35061, 0.352017)),
        "boxes": (0.432661, (0.448224, 0.182179, 0.898018, 0.0315841, 0.0701005, 0.0543828)),
    },
}


def figures(x: Tensor) -> tuple[float, ...]:
    flat = x.double().flatten()
    return (
        float(flat.square().mean().sqrt()),
        *(float(flat[round(step * (len(flat) - 1) / 5)]) for step in range(6)),
    )


@pytest.mark.parametrize("case", list(OFFICIAL))
def test_outputs_are_those_of_the_official_code(tmp_path: Path, kit: Any, case: str) -> None:
    state, arguments, size = kit.state(case), kit.small[case].arguments, kit.small[case].size
    if not arguments:
        places = kit.small[case].anchors
        state |= {"decoder.anchors": torch.zeros(1, places, 4), "decoder.valid_mask": torch.ones(1, places, 1)}
    detector = load_by_name(kit.small[case].name, kit.save(tmp_path, state, "model", arguments))
    assert detector.spec.input.size == (size, size), "from the anchors, or the run's own arguments"
    image = np.random.Generator(np.random.PCG64(7)).random((1, 3, size, size))
    output = detector(torch.from_numpy(image).float())
    for what, (mean, numbers) in OFFICIAL[case].items():
        assert figures(getattr(output, what)) == pytest.approx((mean, *numbers), rel=1e-4, abs=1e-5), what
    _check_saved(detector, tmp_path / "saved", torch.from_numpy(image).float(), output)


def _check_saved(detector: Any, folder: Path, image: Tensor, output: Any) -> None:
    """An exported folder holds every weight: transformers ties heads that differ here."""
    detector.model.save_pretrained(folder)
    detector.processor.save_pretrained(folder)
    again = load_pretrained(str(folder))
    assert again.spec.weights_sha256 == detector.spec.weights_sha256
    assert again.spec.input == detector.spec.input and again.spec.label_names == detector.spec.label_names
    assert torch.equal(again(image).boxes, output.boxes) and torch.equal(again(image).scores, output.scores)
