"""The detectors that go by name with a checkpoint of their official repository."""

from __future__ import annotations

from dataclasses import dataclass

from frozen_cache.detectors.hf.official_keys.d_fine import D_FINE
from frozen_cache.detectors.hf.official_keys.deimv2 import DEIMV2
from frozen_cache.detectors.hf.official_keys.family import OfficialFamily
from frozen_cache.detectors.hf.official_keys.rf_detr import RF_DETR
from frozen_cache.detectors.hf.official_keys.rt_detr import RT_DETR, RT_DETR_V2
from frozen_cache.detectors.hf.official_keys.ultralytics import ULTRALYTICS_L, ULTRALYTICS_X


@dataclass(frozen=True, kw_only=True)
class NamedWeights:
    """A detector that `--detector NAME --weights FILE` takes."""

    title: str
    family: OfficialFamily
    variant: str
    """The published size, as `family.variant` calls it."""
    weights: str
    """Where its weights are published, for people."""
    evaluated: int | None = None
    """Decoder layers that inference uses, where they are fewer than the file has."""
    activation: str | None = None
    """Of the decoder and its heads, where it is not ReLU; the weights do not tell it."""


def _rt_detr(size: str, backbone: str, evaluated: int | None = None) -> dict[str, NamedWeights]:
    place = "github.com/lyuwenyu/RT-DETR, README of "
    return {
        f"{name}-{size}": NamedWeights(
            title=f"{title}, {backbone}", family=family, variant=size, weights=place + folder, evaluated=evaluated
        )
        for name, title, family, folder in (
            ("rtdetr", "RT-DETR", RT_DETR, "rtdetr_pytorch"),
            ("rtdetrv2", "RT-DETRv2", RT_DETR_V2, "rtdetrv2_pytorch"),
        )
    }


def _d_fine(size: str) -> dict[str, NamedWeights]:
    return {
        f"{name}-{size}": NamedWeights(
            title=f"{title}{size.upper()}",
            family=D_FINE,
            variant=size,
            weights=f"github.com/{place}, README",
            activation=activation,
        )
        for name, title, place, activation in (
            ("dfine", "D-FINE-", "Peterande/D-FINE", None),
            ("deim-dfine", "DEIM-D-FINE-", "Intellindust-AI-Lab/DEIM", "silu"),
        )
    }


def _deimv2(size: str) -> dict[str, NamedWeights]:
    place = f"github.com/Intellindust-AI-Lab/DEIMv2, README (deimv2_hgnetv2_{size}_coco.pth)"
    title = f"DEIMv2-{size.capitalize()}, HGNetV2"
    named = NamedWeights(title=title, family=DEIMV2, variant=size, weights=place, activation="silu")
    return {f"deimv2-{size}": named}


def _rf_detr(size: str) -> dict[str, NamedWeights]:
    place = "github.com/roboflow/rf-detr (its package fetches rf-detr-SIZE.pth)"
    return {f"rfdetr-{size}": NamedWeights(title=f"RF-DETR {size}", family=RF_DETR, variant=size, weights=place)}


def _ultralytics(size: str, family: OfficialFamily) -> dict[str, NamedWeights]:
    place = "github.com/ultralytics/assets (its package fetches rtdetr-SIZE.pt)"
    title = f"RT-DETR-{size.upper()} of ultralytics, HGNetV2"
    return {f"ultralytics-rtdetr-{size}": NamedWeights(title=title, family=family, variant=size, weights=place)}


BY_NAME: dict[str, NamedWeights] = {
    **_rt_detr("r18", "ResNet-18"),
    **_rt_detr("r34", "ResNet-34"),
    **_rt_detr("r50", "ResNet-50"),
    **_rt_detr("r50-m", "ResNet-50, narrow encoder, three decoder layers", evaluated=3),
    **_rt_detr("r101", "ResNet-101"),
    **_d_fine("n"),
    **_d_fine("s"),
    **_d_fine("m"),
    **_d_fine("l"),
    **_d_fine("x"),
    **_deimv2("atto"),
    **_deimv2("femto"),
    **_deimv2("pico"),
    **_deimv2("n"),
    **_deimv2("s"),
    **_deimv2("m"),
    **_deimv2("l"),
    **_deimv2("x"),
    **_ultralytics("l", ULTRALYTICS_L),
    **_ultralytics("x", ULTRALYTICS_X),
    **_rf_detr("nano"),
    **_rf_detr("small"),
    **_rf_detr("medium"),
    **_rf_detr("base"),
    **_rf_detr("large"),
}
