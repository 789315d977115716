"""H-Deformable-DETR, inference only (arXiv 2207.13080; HDETR/H-Deformable-DETR, MIT licence).

Two-stage Deformable DETR with mixed query selection. Parameters are named as in the official checkpoints, apart from
the backbone's. The one-to-many queries exist in training only: they are in the embedding, and are not run.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from frozen_cache.detectors.official.backbone import Backbone
from frozen_cache.detectors.official.backbones import build_backbone
from frozen_cache.detectors.official.config import OfficialConfig
from frozen_cache.detectors.official.decoder import MLP, DecoderLayer, inverse_sigmoid, level_references
from frozen_cache.detectors.official.encoder import Encoder
from frozen_cache.detectors.official.position import sine_boxes, token_positions
from frozen_cache.detectors.official.proposals import best_boxes, propose
from frozen_cache.detectors.official.pyramid import build_pyramid, input_projections
from frozen_cache.detectors.official.raw import RawOutput


class HDetr(nn.Module):
    """The whole detector."""

    def __init__(self, *, config: OfficialConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone: Backbone = build_backbone(config.backbone, first_stage=config.first_stage)
        self.input_proj = input_projections(
            channels=self.backbone.channels[config.first_stage :], levels=config.levels, dim=config.dim
        )
        self.transformer = _Transformer(config=config)
        self.query_embed = nn.Embedding(config.queries + config.one_to_many, config.dim)
        heads = config.decoder_layers + 1  # the last one is the encoder's
        self.class_embed = nn.ModuleList(nn.Linear(config.dim, config.classes) for _ in range(heads))
        self.bbox_embed = nn.ModuleList(MLP(sizes=(config.dim, config.dim, config.dim, 4)) for _ in range(heads))

    def forward(self, images: Tensor, padding: Tensor | None = None, *, keep: tuple[int, ...] = ()) -> RawOutput:
        """Run on images (B, 3, H, W); `padding` (B, H, W) is True on padding, `keep` are encoder layers from 1."""
        stages = self.backbone(images)
        pyramid = build_pyramid(stages[self.config.first_stage :], self.input_proj, padding)
        transformer = self.transformer
        positions = token_positions(pyramid.level_padding, transformer.level_embed, temperature=10000, half_pixel=True)
        memory, kept = transformer.encoder(pyramid, positions, keep)

        tokens, proposals = propose(memory, pyramid)
        tokens = transformer.enc_output_norm(transformer.enc_output(tokens))
        scores = self.class_embed[-1](tokens)[..., 0]
        unscaled = best_boxes(scores, self.bbox_embed[-1](tokens) + proposals, k=self.config.queries)

        boxes = unscaled.sigmoid()
        embedded = sine_boxes(boxes, width=self.config.dim // 2, order=(0, 1, 2, 3))
        query_positions = transformer.pos_trans_norm(transformer.pos_trans(embedded))[..., : self.config.dim]
        queries = self.query_embed.weight[: boxes.shape[1]].expand(images.shape[0], -1, -1)
        for layer, head in zip(transformer.decoder.layers, self.bbox_embed, strict=False):
            references = level_references(boxes, pyramid)
            queries = layer(queries, query_positions, references, memory, pyramid)
            boxes = (head(queries) + inverse_sigmoid(boxes, eps=1e-5)).sigmoid()
        return RawOutput(
            queries=queries,
            logits=self.class_embed[self.config.decoder_layers - 1](queries),
            boxes=boxes,
            c1=stages[0],
            encoder=kept,
            pyramid=pyramid,
            positions=positions,
        )


class _Decoder(nn.Module):
    """Holds the layers."""

    def __init__(self, *, config: OfficialConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config=config) for _ in range(config.decoder_layers))


class _Transformer(nn.Module):
    """Holds the parts that the checkpoints call `transformer.*`."""

    def __init__(self, *, config: OfficialConfig) -> None:
        super().__init__()
        dim = config.dim
        self.encoder = Encoder(config=config)
        self.decoder = _Decoder(config=config)
        self.level_embed = nn.Parameter(torch.empty(config.levels, dim))
        nn.init.normal_(self.level_embed)
        self.enc_output = nn.Linear(dim, dim)
        self.enc_output_norm = nn.LayerNorm(dim)
        self.pos_trans = nn.Linear(2 * dim, 2 * dim)
        self.pos_trans_norm = nn.LayerNorm(2 * dim)
