"""The encoder's maps, per layer, out of what a forward pass left in the taps."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from frozen_cache.detectors.hf.families import Family
from frozen_cache.detectors.taps import Taps
from frozen_cache.errors import UserError

ENCODER = "encoder"
BACKBONE = "backbone"


def layer_count(model: nn.Module, family: Family) -> int:
    """Number of encoder layers that can be kept; 1 for encoders with a single output."""
    if family.encoder_kind == "maps":
        return 1
    return len(model.get_submodule(family.encoder + ".layers"))  # type: ignore[arg-type]


def chosen_layers(asked: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    """The kept layers, ascending. Not asked: layer 4, the paper's choice, or the last one of a shallower encoder.

    Raises:
        UserError: for a layer that the encoder does not have.
    """
    layers = (min(4, count),) if asked is None else tuple(sorted(set(asked)))
    wrong = [layer for layer in layers if not 1 <= layer <= count]
    if wrong or not layers:
        raise UserError(
            f"--encoder-layers {','.join(map(str, wrong)) or 'is empty'}: this detector has layers 1 to {count}"
        )
    return layers


def encoder_modules(model: nn.Module, family: Family, layers: tuple[int, ...]) -> dict[str, nn.Module]:
    """The modules to tap, by name: the encoder, the kept layers before the last, the backbone's outlet where needed."""
    modules = {ENCODER: model.get_submodule(family.encoder)}
    if family.encoder_kind == "maps":
        return modules
    count = layer_count(model, family)
    modules |= {_layer(i): model.get_submodule(f"{family.encoder}.layers.{i - 1}") for i in layers if i < count}
    if family.encoder_kind == "tokens" and family.backbone is not None:
        modules[BACKBONE] = model.get_submodule(family.backbone)
    return modules


def encoder_levels(taps: Taps, family: Family, layers: tuple[int, ...]) -> dict[int, list[Tensor]]:
    """Kept layer -> its levels, finest first, each (B, D, H, W). The last layer is the encoder's own output."""
    last = taps.outputs[ENCODER]
    if family.encoder_kind == "maps":
        return {1: sorted(_maps(last), key=lambda level: -level.shape[-1])}
    shapes = _shapes(taps, family)
    tokens = {i: _tokens(taps.outputs.get(_layer(i), last)) for i in layers}
    return {i: _split(value, shapes) for i, value in tokens.items()}


def _layer(index: int) -> str:
    return f"encoder layer {index}"


def _tokens(output: Any) -> Tensor:
    """(B, S, D) of a layer or of an encoder, which return it alone, first in a tuple, or as `last_hidden_state`."""
    return output if isinstance(output, Tensor) else output[0]


def _maps(output: Any) -> list[Tensor]:
    """The maps (B, C, H, W) in a projector's or a hybrid encoder's output."""
    if isinstance(output, Tensor):
        return [output]
    if hasattr(output, "feature_maps"):
        return list(output.feature_maps)
    if hasattr(output, "last_hidden_state"):
        return list(output.last_hidden_state)
    return list(output)


def _shapes(taps: Taps, family: Family) -> list[tuple[int, int]]:
    """(height, width) of each flattened level."""
    if family.encoder_kind == "level_tokens":
        return [(height, width) for height, width in taps.keywords[ENCODER]["spatial_shapes_list"]]
    output = taps.outputs[BACKBONE]  # a list of maps (timm), or an output with them; the encoder works on the last
    maps = output.feature_maps if hasattr(output, "feature_maps") else output
    return [(maps[-1].shape[-2], maps[-1].shape[-1])]


def _split(tokens: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    levels = tokens.split([height * width for height, width in shapes], dim=1)
    return [level.transpose(1, 2).unflatten(2, shape) for level, shape in zip(levels, shapes, strict=True)]
