"""DEIMv2 as its authors published it, where transformers (5.23) computes something else.

Published: a level that has the encoder's channels already enters it as it is; the encoder's places are scored and taken
as queries with no projection and norm before; and the queries' position embedding comes once, from the first boxes, for
all layers. A configuration says so in a field of our own, `as_published`; `save_pretrained` keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

FIELD = "as_published"
POSITIONS = "first_positions"


def lacks(config: Any, weight: str) -> bool:
    """True for a weight that transformers' model of this configuration has and ours goes without."""
    return any(weight.startswith(f"{path}.") for path in _left_out(config))


def apply_as_published(model: Any) -> None:
    """Make the model the published one where its configuration says so; nothing where it does not."""
    for path in _left_out(model.config):
        parent, _, own = path.rpartition(".")
        setattr(model.get_submodule(parent), own, nn.Identity())
    if getattr(model.config, FIELD, False):
        decoder = model.model.decoder
        decoder.register_forward_pre_hook(_embed_first_boxes, with_kwargs=True)
        for layer in decoder.layers:
            layer.register_forward_pre_hook(_take_first_positions, with_kwargs=True)


def _left_out(config: Any) -> Iterator[str]:
    """The modules that the published model has not."""
    if not getattr(config, FIELD, False):
        return
    yield "model.enc_output"
    if config.encoder_type != "lite":
        for level, channels in enumerate(config.encoder_in_channels):
            if channels == config.encoder_hidden_dim:
                yield f"model.conv_encoder.encoder_input_proj.{level}"


def _embed_first_boxes(decoder: Any, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Hand the embedding of the first boxes to the layers, with the other keywords that the decoder passes on."""
    positions = decoder.query_pos_head(named["reference_points"].sigmoid()).clamp(min=-10, max=10)
    return inputs, named | {POSITIONS: positions}


def _take_first_positions(layer: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    others = {name: each for name, each in named.items() if name != POSITIONS}
    return inputs, others | {"position_embeddings": named[POSITIONS]}
