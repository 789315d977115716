"""A stem is data: what is not known, does not fit or is absurd is one line, and takes neither time nor memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from frozen_cache.detectors.stem import Stem, StemConfig, StemMap, offered_stem
from frozen_cache.errors import UserError

RESNET = {
    "embedding_size": 4,
    "hidden_sizes": [4, 6, 8, 10],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "frozen_norms": True,
}
STAGE = StemMap(module="encoder.stages.0")


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    from frozen_cache.detectors.stem_kinds import KINDS

    live = KINDS["resnet"](RESNET).eval()
    return Stem.take(live, StemConfig(kind="resnet", config=RESNET, c1=STAGE), trial=torch.zeros(1, 3, 64, 64)).tensors


def refused(tensors: dict[str, torch.Tensor], *, kind: str = "resnet", c1: StemMap = STAGE, **config: Any) -> str:
    with pytest.raises(UserError) as error:
        Stem(StemConfig(kind=kind, config=RESNET | config, c1=c1), tensors)({1: torch.zeros(1, 3, 64, 64)})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    return str(error.value)


def test_a_stranger_s_stem_is_one_line(tensors) -> None:
    assert "is not known" in refused(tensors, kind="os.system")
    assert "is not known" in refused(tensors, kind="bert")
    assert "'trust_remote_code', which is not known" in refused(tensors, trust_remote_code=True)
    assert "'depths' of a size" in refused(tensors, depths=[10**6, 1, 1, 1])
    assert "'hidden_sizes' of a size" in refused(tensors, hidden_sizes=[2**40, 6, 8, 10])
    assert "'hidden_sizes' of a size" in refused(tensors, hidden_sizes=[4] * 1000)
    assert "'embedding_size' of a size or type" in refused(tensors, embedding_size={"a": 1})
    assert "can be built" in refused(tensors, layer_type="other")
    assert "is float32 (4, 3, 7, 7), its configuration asks for" in refused(tensors, embedding_size=9000)
    assert "has no stage nowhere" in refused(tensors, c1=StemMap(module="nowhere"))
    assert "has no stage" in refused(tensors, c1=StemMap(module=""))
    assert "lacks weights" in refused(tensors, c1=StemMap(module="encoder.stages.3"))


def test_weights_that_do_not_fit_are_named(tensors) -> None:
    first = next(iter(tensors))
    assert f"`{first}` is float16" in refused(tensors | {first: tensors[first].half()})
    assert "`strange.weight`, which its configuration does not know" in refused(
        tensors | {"strange.weight": torch.zeros(1)}
    )
    assert "does not know" in refused(tensors | {f"{first}.weight": torch.zeros(1)})
    assert "lacks weights" in refused({name: each for name, each in tensors.items() if name != first})


@pytest.mark.parametrize("name", ["hf-hub:someone/something", "../resnet18", "no_such_model", "resnet18:x"])
def test_timm_builds_its_own_models_only(name: str) -> None:
    with pytest.raises(UserError, match="timm has no backbone"):
        Stem(StemConfig(kind="timm", config={"name": name}, c1=StemMap(module="layer1")), {})


def test_a_detector_s_stem_is_compared_with_its_maps(tensors) -> None:
    stem = Stem(StemConfig(kind="resnet", config=RESNET, c1=STAGE), tensors)

    def maps(images: torch.Tensor) -> torch.Tensor:
        found = stem({1: images})[0]
        assert found is not None
        return found

    class Detector:
        factor = 1.0

        def __call__(self, images: torch.Tensor) -> Any:
            return SimpleNamespace(c1=self.factor * maps(images), encoder={1: []})

        def stem(self) -> Stem:
            return stem

    detector, cpu = Detector(), torch.device("cpu")
    assert offered_stem(detector, trial_size=(64, 96), device=cpu) is stem
    assert offered_stem(object(), trial_size=(64, 96), device=cpu) is None
    detector.factor = 1.1
    with pytest.raises(UserError, match="another C1 than the detector"):
        offered_stem(detector, trial_size=(64, 96), device=cpu)
