"""DINO, inference only (arXiv 2203.03605; IDEA-Research/DINO and FocalNet/FocalNet-DINO, Apache-2.0).

Parameters are named as in the official checkpoints, apart from the backbone's. `label_enc` serves the denoising of
the training only; it is kept so that a checkpoint is whole.
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


class Dino(nn.Module):
    """The whole detector. One class head and one box head serve all decoder layers."""

    def __init__(self, *, config: OfficialConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone: Backbone = build_backbone(config.backbone, first_stage=config.first_stage)
        self.input_proj = input_projections(
            channels=self.backbone.channels[config.first_stage :], levels=config.levels, dim=config.dim
        )
        self.transformer = _Transformer(config=config)
        self.label_enc = nn.Embedding(config.label_rows, config.dim)
        self.class_embed = nn.ModuleList([nn.Linear(config.dim, config.classes)])
        self.bbox_embed = nn.ModuleList([MLP(sizes=(config.dim, config.dim, config.dim, 4))])

    def forward(self, images: Tensor, padding: Tensor | None = None, *, keep: tuple[int, ...] = ()) -> RawOutput:
        """Run on images (B, 3, H, W); `padding` (B, H, W) is True on padding, `keep` are encoder layers from 1."""
        stages = self.backbone(images)
        pyramid = build_pyramid(stages[self.config.first_stage :], self.input_proj, padding)
        transformer = self.transformer
        positions = token_positions(pyramid.level_padding, transformer.level_embed, temperature=20, half_pixel=False)
        memory, kept = transformer.encoder(pyramid, positions, keep)

        tokens, proposals = propose(memory, pyramid)
        tokens = transformer.enc_output_norm(transformer.enc_output(tokens))
        scores = transformer.enc_out_class_embed(tokens).amax(-1)
        boxes = best_boxes(scores, transformer.enc_out_bbox_embed(tokens) + proposals, k=self.config.queries).sigmoid()

        decoder, head = transformer.decoder, self.bbox_embed[0]
        queries = transformer.tgt_embed.weight[: boxes.shape[1]].expand(images.shape[0], -1, -1)
        before = boxes
        for layer in decoder.layers:
            before = inverse_sigmoid(boxes, eps=1e-3)
            references = level_references(boxes, pyramid)
            embedded = sine_boxes(references[:, :, 0], width=self.config.dim // 2, order=(1, 0, 2, 3))
            queries = layer(queries, decoder.ref_point_head(embedded), references, memory, pyramid)
            boxes = (head(queries) + before).sigmoid()  # refined from the state before the norm
        queries = decoder.norm(queries)
        return RawOutput(
            queries=queries,
            logits=self.class_embed[0](queries),
            boxes=(head(queries) + before).sigmoid(),  # returned from the state after it
            c1=stages[0],
            encoder=kept,
            pyramid=pyramid,
            positions=positions,
        )


class _Decoder(nn.Module):
    """Holds the layers, the head of the query positions, and the final norm."""

    def __init__(self, *, config: OfficialConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config=config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.dim)
        self.ref_point_head = MLP(sizes=(2 * config.dim, config.dim, config.dim))


class _Transformer(nn.Module):
    """Holds the parts that the checkpoints call `transformer.*`."""

    def __init__(self, *, config: OfficialConfig) -> None:
        super().__init__()
        dim = config.dim
        self.encoder = Encoder(config=config)
        self.decoder = _Decoder(config=config)
        self.level_embed = nn.Parameter(torch.empty(config.levels, dim))
        nn.init.normal_(self.level_embed)
        self.tgt_embed = nn.Embedding(config.queries, dim)
        self.enc_output = nn.Linear(dim, dim)
        self.enc_output_norm = nn.LayerNorm(dim)
        self.enc_out_class_embed = nn.Linear(dim, config.classes)
        self.enc_out_bbox_embed = MLP(sizes=(dim, dim, dim, 4))
