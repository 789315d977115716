"""`TransformersDetector`: a transformers DETR behind the `FrozenDetector` interface."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from frozen_cache.detectors.fingerprint import weights_sha256
from frozen_cache.detectors.hf.encoder import ENCODER, chosen_layers, encoder_levels, encoder_modules, layer_count
from frozen_cache.detectors.hf.families import FAMILIES, backbone_of, class_head_of, part_of
from frozen_cache.detectors.hf.image_sizes import TOO_FEW, check_uneven_sizes, explained, few_places, size_error
from frozen_cache.detectors.hf.input_rule import rule_from_processor
from frozen_cache.detectors.hf.rule_check import check_rule
from frozen_cache.detectors.hf.stem import transformers_stem
from frozen_cache.detectors.input_rule import InputRule
from frozen_cache.detectors.labels import names_from_config
from frozen_cache.detectors.output import DetectorOutput, DetectorSpec, FeatureSpec
from frozen_cache.detectors.stages import map_stride, stage_map, stage_modules
from frozen_cache.detectors.stem import Stem, StemMap
from frozen_cache.detectors.taps import Taps, run_until
from frozen_cache.errors import UserError

HEAD = "class head"
TRIAL_SIZE = (256, 320)
"""(height, width) in pixels of the trial run where the input rule leaves the size open."""


class TransformersDetector:
    """A `...ForObjectDetection` model of one of `FAMILIES`, frozen, with taps on its features.

    A trial run on one blank image finds the backbone's stages and checks every stride and channel count of `spec`.

    Args:
        model: the model, with its weights.
        processor: its image processor; gives the input rule.
        name: the detector as the user named it, without any path.
        encoder_layers: encoder layers to keep, from 1; None for layer 4, or the last of a shallower encoder.
        backbone_strides: strides of backbone maps to add to the encoder's levels.
        backbone_scale: 2 or 4 take C1 and the added maps from the image at so many times the input size too: finer,
            while queries, boxes and the encoder's levels stay those of the detector's own input.

    Raises:
        UserError: a family, encoder layer or stride that is not there; a model that fails on its own input size.
    """

    spec: DetectorSpec

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        *,
        name: str,
        encoder_layers: tuple[int, ...] | None = None,
        backbone_strides: tuple[int, ...] = (),
        backbone_scale: int = 1,
    ) -> None:
        model_type = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        if model_type not in FAMILIES:
            raise UserError(f"{name} is a {model_type} model; the families known are {', '.join(FAMILIES)}")
        self.family = FAMILIES[model_type]
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self.backbone = backbone_of(model, self.family)
        try:
            head, count = class_head_of(model, self.family), layer_count(model, self.family)
        except AttributeError as error:  # a part is not where the family keeps it
            raise UserError(
                f"{name} is a {type(model).__name__}; expected the family's ...ForObjectDetection"
            ) from error
        layers = chosen_layers(encoder_layers, count)
        self._encoder_layers = layers
        self._modules = {HEAD: head, **encoder_modules(model, self.family, layers)}
        self._stages: dict[int, str] = {}
        """Stride -> name of the backbone's last stage at that stride; only those in use are tapped."""
        self._c1_stride: int | None = None
        self._added: tuple[int, ...] = tuple(sorted(set(backbone_strides)))
        self._scale = backbone_scale
        if backbone_scale not in (1, 2, 4):
            raise UserError(f"a backbone scale of {backbone_scale} is not supported: choose 1, 2 or 4")
        rule = rule_from_processor(processor)
        check_rule(rule, processor, name=name)
        self.spec = self._describe(name, model_type, rule)

    @property
    def backbone_strides(self) -> tuple[int, ...]:
        """Strides of the backbone maps that were added to the encoder's levels."""
        return self._added

    def to(self, device: torch.device | str) -> TransformersDetector:
        """Move to a device and return itself."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor, enlarged: Tensor | None = None) -> DetectorOutput:
        """Run on images (B, 3, H, W) float32, prepared by `spec.input`, on the model's device; no gradient.

        Every pixel counts as the image's: no padding. Autocast is the caller's choice; scores and boxes are float32.
        With a `backbone_scale` above 1 the same views enlarged by it are needed too; without them a ValueError.
        """
        return self.outputs(images, enlarged)

    def outputs_and_loss(self, images: Tensor, labels: list[dict[str, Tensor]]) -> tuple[DetectorOutput, Tensor]:
        """The outputs, and the family's own loss as transformers has it, both with gradients.

        Args:
            labels: of each image `class_labels` (N,) int64, the detector's own, and `boxes` (N, 4) cxcywh in 0..1.
        """
        output, named, loss = self._run(images, None, labels)
        assert loss is not None  # labels were given
        return _with_levels(output, named), loss

    def outputs(self, images: Tensor, enlarged: Tensor | None = None) -> DetectorOutput:
        """As a call, with gradients where parameters are no longer frozen."""
        if (enlarged is None) != (self._scale == 1):
            raise ValueError(f"backbone_scale is {self._scale}: give `enlarged` images if and only if it is above 1")
        output, named, _ = self._run(images, enlarged)
        return _with_levels(output, named)

    def part_of(self, name: str) -> Literal["backbone", "encoder", "decoder"]:
        """The part that a parameter of `model` belongs to."""
        return part_of(name, self.family)

    def stem(self) -> Stem | None:
        """What gives C1 and the added maps again from the image alone; None where there are none of either."""
        if self.backbone is None or not self._stages:
            return None
        added = {
            _added(stride, scale): StemMap(module=self._stages[stride], scale=scale)
            for stride in self._added
            for scale in (1, self._scale)
        }
        sources = [level.source for level in self.spec.encoder_levels]
        return transformers_stem(
            self.model,
            self.backbone,
            c1=None if self._c1_stride is None else StemMap(module=self._stages[self._c1_stride], scale=self._scale),
            levels={index: added[source] for index, source in enumerate(sources) if source in added},
            trial=torch.zeros(1, 3, *(self.spec.input.size or TRIAL_SIZE), device=next(self.model.parameters()).device),
        )

    def _run(
        self, images: Tensor, enlarged: Tensor | None, labels: list[dict[str, Tensor]] | None = None
    ) -> tuple[DetectorOutput, dict[int, list[tuple[str, Tensor]]], Tensor | None]:
        """The output without levels, the levels with the names of their sources, and with labels the family's loss."""
        stages = {name: self.backbone.get_submodule(name) for name in self._stages.values()} if self.backbone else {}
        with Taps(self._modules | stages, with_inputs=(HEAD, ENCODER)) as taps:
            try:
                outputs = self.model(pixel_values=images, labels=labels)
            except RuntimeError as error:
                if TOO_FEW not in str(error):
                    raise
                raise UserError(
                    f"{self.spec.name} fails on an image of {_size(images)} pixels (height, width), as its image "
                    f"processor makes it: {few_places(self.model)}; set a larger `size` there, or leave such images out"
                ) from error
        maps = {stride: self._stage_map(taps, name) for stride, name in self._stages.items()}
        added = [(_added(stride, 1), maps[stride]) for stride in self._added]
        if enlarged is not None and self.backbone is not None:
            with Taps(stages) as finer:
                run_until(self.model, self.backbone, enlarged)
            maps = {stride: self._stage_map(finer, name) for stride, name in self._stages.items()}
            added += [(_added(stride, self._scale), maps[stride]) for stride in self._added]
        logits = outputs.logits.float()
        scores = logits.softmax(-1)[..., :-1] if self.family.softmax else logits.sigmoid()
        levels = encoder_levels(taps, self.family, self._encoder_layers)
        source = self.family.encoder.removeprefix("model.")
        output = DetectorOutput(
            queries=taps.inputs[HEAD][0],
            boxes=outputs.pred_boxes.float(),
            scores=scores,
            labels=torch.arange(scores.shape[-1], device=scores.device),
            c1=None if self._c1_stride is None else maps[self._c1_stride],
            encoder={},
        )
        named = {
            layer: _finest_first([*((source, level) for level in found), *added]) for layer, found in levels.items()
        }
        return output, named, outputs.loss

    def _stage_map(self, taps: Taps, name: str) -> Tensor:
        found = stage_map(taps.outputs[name], self.backbone) if self.backbone is not None else None
        assert found is not None, name  # the trial run saw a map here
        return found

    def _describe(self, name: str, model_type: str, rule: InputRule) -> DetectorSpec:
        """The spec, from the configuration and a trial run."""
        size = rule.size or TRIAL_SIZE
        device = next(self.model.parameters()).device
        check_uneven_sizes(self.model, rule, name=name)
        found = self._find_stages(torch.zeros(1, 3, *size, device=device), name, rule)
        if 4 in found:
            self._c1_stride = 4
        missing = [stride for stride in self._added if stride not in found]
        if missing:
            raise UserError(f"{name} has no backbone map of stride {missing[0]}; it has {sorted(found) or 'none'}")
        self._stages = {stride: found[stride] for stride in found if stride == self._c1_stride or stride in self._added}
        if self._scale > 1 and not self._stages:
            raise UserError(
                f"{name} gives no backbone map, so a backbone scale of {self._scale} would do nothing: leave it out"
            )
        finer = (size[0] * self._scale, size[1] * self._scale)
        enlarged = torch.zeros(1, 3, *finer, device=device) if self._scale > 1 else None
        output, named, _ = self._run(torch.zeros(1, 3, *size, device=device), enlarged)
        names = names_from_config(getattr(self.model.config, "id2label", None), output.scores.shape[-1])
        num_queries, query_dim = output.queries.shape[1:]
        of_scale = f" of {self._scale} x" if self._scale > 1 else ""
        return DetectorSpec(
            name=name,
            family=model_type,
            weights_sha256=weights_sha256(self.model.state_dict()),
            input=rule,
            query_dim=query_dim,
            num_queries=num_queries,
            num_labels=output.scores.shape[-1],
            label_names=names.names,
            label_is_category_id=names.label_is_category_id,
            one_label_per_query=self.family.softmax,
            top_k=self.family.top_k or num_queries,
            backbone_scale=self._scale,
            c1=None if output.c1 is None else self._feature(output.c1, size, f"backbone {self._stages[4]}{of_scale}"),
            encoder_levels=tuple(
                self._feature(level, size, source) for source, level in named[self._encoder_layers[0]]
            ),
            encoder_layers=self._encoder_layers,
        )

    def _find_stages(self, images: Tensor, name: str, rule: InputRule) -> dict[int, str]:
        """Stride -> name of the backbone's last stage at that stride."""
        modules = stage_modules(self.backbone) if self.backbone is not None else {}
        try:
            with torch.no_grad(), Taps(modules) as taps:
                self.model(pixel_values=images)
        except Exception as error:
            raise size_error(self.model, rule, _size(images), explained(self.model, error), name=name) from error
        strides: dict[int, str] = {}
        for stage, output in taps.outputs.items():
            found = stage_map(output, self.backbone) if self.backbone is not None else None
            stride = None if found is None else map_stride(_size(images), _size(found))
            if stride is not None:
                strides[stride] = stage
        return strides

    def _feature(self, level: Tensor, size: tuple[int, int], source: str) -> FeatureSpec:
        stride = map_stride(size, _size(level))
        if stride is None:
            raise UserError(f"{source} gives a map of {_size(level)} for an image of {size}: not one stride")
        return FeatureSpec(channels=level.shape[1], stride=stride, source=source)


def _with_levels(output: DetectorOutput, named: dict[int, list[tuple[str, Tensor]]]) -> DetectorOutput:
    return replace(output, encoder={layer: [level for _, level in levels] for layer, levels in named.items()})


def _added(stride: int, scale: int) -> str:
    """The source of an added map, for people."""
    return f"backbone stride {stride}{f' of {scale} x' if scale > 1 else ''} (added)"


def _finest_first(levels: list[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """By falling size; of equal ones the encoder's stands before the backbone's."""
    return sorted(levels, key=lambda level: -level[1].shape[-2:].numel())


def _size(maps: Tensor) -> tuple[int, int]:
    """(height, width) of images or maps (B, C, H, W)."""
    return maps.shape[-2], maps.shape[-1]
