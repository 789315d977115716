"""DEIMv2's decoder as its authors published it, where transformers (5.23) computes something else.

Published: the encoder's places are scored and taken as queries as they are, with no projection and norm before; and the
queries' position embedding comes once, from the first boxes, for all layers. A configuration says so in a field of our own,
`published_decoder`; `save_pretrained` keeps it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

FIELD = "published_decoder"
PROJECTION = "model.enc_output."
"""Weights that transformers' model has and a published one has not."""
POSITIONS = "first_positions"


def lacks(model_config: Any, weight: str) -> bool:
    """True for a weight of transformers' model that this model goes without."""
    return bool(getattr(model_config, FIELD, False)) and weight.startswith(PROJECTION)


def apply_published_decoder(model: Any) -> None:
    """Make the decoder the published one where the configuration says so; nothing where it does not."""
    if not getattr(model.config, FIELD, False):
        return
    model.model.enc_output = nn.Identity()
    decoder = model.model.decoder
    decoder.register_forward_pre_hook(_embed_first_boxes, with_kwargs=True)
    for layer in decoder.layers:
        layer.register_forward_pre_hook(_take_first_positions, with_kwargs=True)


def _embed_first_boxes(decoder: Any, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Hand the embedding of the first boxes to the layers, with the other keywords that the decoder passes on."""
    positions = decoder.query_pos_head(named["reference_points"].sigmoid()).clamp(min=-10, max=10)
    return inputs, named | {POSITIONS: positions}


def _take_first_positions(layer: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    named = dict(named)
    return inputs, named | {"position_embeddings": named.pop(POSITIONS)}
