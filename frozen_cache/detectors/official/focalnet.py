"""FocalNet as a detection backbone: timm's stages with post-LN, layer scale and normalised modulator."""

from __future__ import annotations

import re
from functools import partial

from timm.layers import LayerNorm2d
from timm.models.focalnet import FocalNet as TimmFocalNet
from torch import Tensor, nn
from torch.nn import functional as F

from frozen_cache.detectors.official.backbone import Backbone
from frozen_cache.detectors.official.config import FocalNetConfig

PATCH = 4
LINEAR_IN_THE_OFFICIAL_CODE = re.compile(r"(modulation\.(f|proj)|mlp\.fc[12])\.weight$")


class FocalNet(Backbone):
    """The four stages; those from `first_stage` on are normed."""

    def __init__(self, *, config: FocalNetConfig, first_stage: int) -> None:
        super().__init__()
        stages = len(config.depths)
        self.channels = tuple(config.embed * 2**i for i in range(stages))
        body = TimmFocalNet(
            num_classes=0,
            embed_dim=config.embed,
            depths=config.depths,
            focal_levels=(config.focal_levels,) * stages,
            focal_windows=(config.focal_window,) * stages,
            use_overlap_down=True,
            use_post_norm=True,
            normalize_modulator=True,
            layerscale_value=1e-4,
            drop_path_rate=0.0,
        )
        self.stem, self.layers = body.stem, body.layers
        norm = partial(LayerNorm2d, eps=1e-5)
        self.norms = nn.ModuleDict({str(i): norm(self.channels[i]) for i in range(first_stage, stages)})

    def forward(self, images: Tensor) -> list[Tensor]:
        """The four maps of images (B, 3, H, W), sizes rounded up."""
        height, width = images.shape[-2:]
        x = self.stem(F.pad(images, (0, -width % PATCH, 0, -height % PATCH)))
        stages = []
        for index, stage in enumerate(self.layers):
            x = stage(x)
            name = str(index)
            stages.append((self.norms[name](x) if name in self.norms else x).contiguous())
        return stages

    def official_name(self, name: str) -> str:
        """`layers.0.downsample.proj.weight` of `layers.1.downsample.proj.weight`, and the like."""
        if name.startswith("norms."):
            return name.replace("norms.", "norm", 1)
        if name.startswith("stem."):
            return name.replace("stem.", "patch_embed.", 1)
        downsample = re.fullmatch(r"layers\.(\d+)\.downsample\.(.*)", name)
        if downsample:  # timm puts it before the stage, the official code after the one before
            return f"layers.{int(downsample[1]) - 1}.downsample.{downsample[2]}"
        name = re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", name)
        return re.sub(r"\.norm([12])_post\.", r".norm\1.", name)

    def official_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Linear layers are 1x1 convolutions in timm."""
        return shape[:2] if LINEAR_IN_THE_OFFICIAL_CODE.search(name) else shape
