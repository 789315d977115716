"""RT-DETR of ultralytics: HGNetV2 and the official RT-DETR's parts, numbered in one sequence, saved as one object."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from frozen_cache.detectors.hf.official_keys.family import OfficialFamily
from frozen_cache.detectors.hf.official_keys.hgnet import HGNetNames, hgnet_config
from frozen_cache.detectors.hf.official_keys.names import Rules
from frozen_cache.detectors.hf.official_keys.rt_detr import DECODER, STRIDES, TWO_LAYERS
from frozen_cache.detectors.hf.official_keys.sizes import OfficialWeights
from frozen_cache.detectors.official.checkpoint import Checkpoint, opened
from frozen_cache.detectors.official.pickled_module import StandIn, is_module, load_with_stand_ins, modules, state_dict
from frozen_cache.errors import UserError

MODEL = "RTDETRDetectionModel"
EPSILON = 1e-5
"""Of every batch norm in transformers' RT-DETR."""

Stages = tuple[tuple[int, ...], ...]
LARGE: Stages = ((1,), (3,), (5, 6, 7), (9,))
"""The places of the backbone's blocks, by stage; the stem is at 0, and a stage's convolution of stride 2 before it."""
EXTRA_LARGE: Stages = ((1,), (3, 4), (6, 7, 8, 9, 10), (12, 13))
PROJECTIONS = (9, 4, 0)
"""Of the three levels to the encoder, counted from the end of the backbone."""

BACKBONE: Rules = (
    (r"^(model\.backbone\..*)\.convolution\.", r"\1.conv."),
    (r"^(model\.backbone\..*)\.normalization\.", r"\1.bn."),
    (r"\.aggregation\.0\.", ".sc."),
    (r"\.aggregation\.1\.", ".ec."),
    (r"^(model\.backbone\..*\.blocks\.\d+)\.layers\.", r"\1.m."),
)
ENCODER: Rules = (
    (r"^(model\.encoder\.\w+_(?:convs|blocks)\..*)norm\.", r"\1bn."),
    (r"^(model\.encoder\.\w+_blocks\.\d+)\.conv([123])\.", r"\1.cv\2."),
    (r"\.bottlenecks\.", ".m."),
    (r"self_attn\.o_proj\.", "self_attn.out_proj."),
    (r"^(model\.encoder\.aifi\..*)\.self_attn\.", r"\1.ma."),
    (r"^(model\.encoder\.aifi\..*)\.self_attn_layer_norm\.", r"\1.norm1."),
    (r"^(model\.encoder\.aifi\..*)\.final_layer_norm\.", r"\1.norm2."),
    (r"^(model\.encoder\.aifi\..*)\.mlp\.", r"\1."),
)


def _places(stages: Stages) -> dict[str, int]:
    """A part of the transformers model -> its place in the sequence."""
    head = stages[-1][-1] + 1
    places = {"model.backbone.model.embedder": 0, "model.encoder.aifi.0.layers.0": head + 1, "decoder": head + 18}
    for index, blocks in enumerate(stages):
        stage = f"model.backbone.model.encoder.stages.{index}"
        places |= {f"{stage}.blocks.{number}": place for number, place in enumerate(blocks)}
        places[f"{stage}.downsample"] = blocks[0] - 1
    for part, pair in {
        "lateral_convs": (2, 7),
        "fpn_blocks": (6, 11),
        "downsample_convs": (12, 15),
        "pan_blocks": (14, 17),
    }.items():
        places |= {f"model.encoder.{part}.{index}": head + place for index, place in enumerate(pair)}
    return places


def _rules(stages: Stages) -> Rules:
    head = stages[-1][-1] + 1
    projections = tuple(
        (rf"^model\.encoder_input_proj\.{level}\.{number}\.", f"model.{head + place}.{name}.")
        for level, place in enumerate(PROJECTIONS)
        for number, name in enumerate(("conv", "bn"))
    )
    sequence = tuple((rf"^{re.escape(part)}\.", f"model.{place}.") for part, place in _places(stages).items())
    own = (r"^model\.decoder_input_proj\.", "decoder.input_proj.")
    return (*projections, *BACKBONE, *ENCODER, own, *DECODER, *TWO_LAYERS, *sequence)


def _read(file: Path) -> Checkpoint:
    """The average over training, or the model, as ultralytics' trainer saves them.

    `running_var` takes up what a batch norm's epsilon there (1e-3) is larger than here: the same function.

    Raises:
        UserError: no file of ultralytics, or another model of theirs.
    """
    content = opened(file, load_with_stand_ins)
    content = content if isinstance(content, dict) else {}
    model = next((each for place in ("ema", "model") if is_module(each := content.get(place))), None)
    if model is None:
        raise UserError(f"weights {file}: is it a checkpoint of ultralytics? It holds no module under ema or model")
    if type(model).__name__ != MODEL:
        raise UserError(f"weights {file}: holds ultralytics' {type(model).__name__}, expected its RT-DETR ({MODEL})")
    parts = dict(modules(model))
    if any(type(part).__name__ == "ResNetLayer" for part in parts.values()):
        raise UserError(
            f"weights {file}: ultralytics' RT-DETR on ResNet is not converted, as transformers has no such blocks: "
            "give the model in a factory of your own, FILE.py:FACTORY"
        )
    weights = {name: each.float() if each.is_floating_point() else each for name, each in state_dict(model).items()}
    for name, part in parts.items():
        if f"{name}.running_var" in weights:
            weights[f"{name}.running_var"] = weights[f"{name}.running_var"] + (part.__dict__["eps"] - EPSILON)
    return Checkpoint(path=file, weights=weights, arguments=_arguments(model, content, parts))


def _arguments(model: StandIn, content: dict[Any, Any], parts: dict[str, StandIn]) -> dict[str, Any]:
    """What the weights' shapes do not tell: input size, class names, queries, heads."""
    run = content.get("train_args")
    size = run.get("imgsz") if isinstance(run, dict) else None
    names = model.__dict__.get("names")
    decoder = next((part.__dict__ for part in parts.values() if type(part).__name__ == "RTDETRDecoder"), {})
    return {
        "size": size[0] if isinstance(size, list) and size else size,
        "names": dict(names) if isinstance(names, dict) else None,
        "queries": decoder.get("num_queries"),
        "heads": decoder.get("nhead"),
    }


def _config(weights: OfficialWeights, *, stages: Stages) -> Any:
    from transformers import RTDetrConfig

    head, decoder = stages[-1][-1] + 1, f"model.{_places(stages)['decoder']}"
    levels = [f"model.{head + place}.conv.weight" for place in PROJECTIONS]
    hidden = weights.rows(levels[0])
    heads = weights.arguments.get("heads") or 8
    samples = weights.rows(f"{decoder}.decoder.layers.0.cross_attn.attention_weights.bias")
    return RTDetrConfig(
        backbone_config=hgnet_config(
            weights,
            levels=3,
            stem="model.0",
            stages=[[f"model.{place}" for place in places] for places in stages],
            downsample=[f"model.{places[0] - 1}" for places in stages],
            names=HGNetNames(layers="m", excitation="ec"),
        ),
        encoder_hidden_dim=hidden,
        encoder_in_channels=[weights.shape(name)[1] for name in levels],
        encoder_ffn_dim=weights.rows(f"model.{head + 1}.fc1.bias"),
        hidden_expansion=weights.rows(f"model.{head + 6}.cv1.conv.weight") / hidden,
        feat_strides=list(STRIDES),
        decoder_in_channels=[hidden] * 3,
        d_model=weights.shape(f"{decoder}.enc_score_head.weight")[1],
        decoder_layers=weights.count(f"{decoder}.decoder.layers"),
        decoder_ffn_dim=weights.rows(f"{decoder}.decoder.layers.0.linear1.bias"),
        decoder_attention_heads=heads,
        decoder_n_points=samples // (heads * len(levels)),
        num_feature_levels=len(levels),
        num_queries=weights.arguments.get("queries") or 300,
        num_denoising=0,
    )


def _family(size: str, stages: Stages) -> OfficialFamily:
    decoder = f"model.{_places(stages)['decoder']}"
    return OfficialFamily(
        rules=_rules(stages),
        ignored=rf"{re.escape(decoder)}\.(denoising_class_embed\.|anchors$|valid_mask$)",
        marks=(f"model.{stages[-1][-1]}.ec.conv.weight", f"{decoder}.dec_score_head.0.bias"),
        config=partial(_config, stages=stages),
        classes=f"{decoder}.dec_score_head.0.bias",
        input_size=lambda weights: weights.arguments.get("size") or 640,
        variant=lambda config: size,
        preprocessing="ultralytics",
        read=_read,
    )


ULTRALYTICS_L = _family("l", LARGE)
ULTRALYTICS_X = _family("x", EXTRA_LARGE)
