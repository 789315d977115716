"""The mask head of Mask R-CNN (arXiv 1703.06870): 3x3 convolutions, deconvolution, 1x1 convolution. The one to beat.

As in detectron2: RoIAlign 14, four convolutions without norm, ReLU, masks at 28, with `roi_size=14`, `width=256`,
`box_encoder=fcn`, `box_layers=4`, `mask_head=fcn`, `query_blocks=[]`.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from frozen_cache.precision import full_precision, wide


class FcnEncoder(nn.Sequential):
    """3x3 convolutions with ReLU; a box encoder. (N, D, R, R) to (N, D, R, R)."""

    def __init__(self, *, dim: int, convs: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(convs):
            conv = nn.Conv2d(dim, dim, 3, padding=1)
            _relu_init(conv)
            layers += [conv, nn.ReLU()]
        super().__init__(*layers)


class FcnMaskHead(nn.Module):
    """2x2 deconvolution of stride 2, ReLU, 1x1 convolution to one mask per class.

    Args:
        dim: width D of the RoI features.
        classes: number of masks; 1 for one mask whatever the class.
    """

    def __init__(self, *, dim: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.deconv = nn.ConvTranspose2d(dim, dim, 2, stride=2)
        _relu_init(self.deconv)
        self.out = nn.Conv2d(dim, classes, 1)
        nn.init.normal_(self.out.weight, std=0.001)
        _zero_bias(self.out)

    def forward(self, rois: Tensor, labels: Tensor) -> Tensor:
        """Masks of each RoI's own class.

        Args:
            rois: (N, D, R, R).
            labels: (N,) int64 category index.

        Returns:
            (N, 2 R, 2 R) logits.
        """
        grown = F.relu(self.deconv(rois))
        with full_precision(rois):
            masks = self.out(wide(grown))
        if self.classes == 1:
            return masks[:, 0]
        return masks.gather(1, labels[:, None, None, None].expand(-1, 1, *masks.shape[2:]))[:, 0]


def _relu_init(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    _zero_bias(conv)


def _zero_bias(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
