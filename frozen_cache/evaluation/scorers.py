"""AP from images as they come: by pycocotools, the reference, or by hotcoco, which is much faster."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from typing import Literal, Protocol

from frozen_cache.cache.attributes import Category
from frozen_cache.errors import UserError
from frozen_cache.evaluation.coco import CocoScores, scores_of
from frozen_cache.evaluation.matching import ImageMatches, Kind, joined
from frozen_cache.evaluation.outcome import ImageOutcome

CocoApi = Literal["pycocotools", "hotcoco"]
ALL_KINDS: tuple[Kind, ...] = ("segm", "bbox", "boundary")


class Scorer(Protocol):
    """Takes images one by one, then says their AP."""

    matched: tuple[Kind, ...]
    """The kinds that it wants matched by pycocotools (`ImageTask.kinds`)."""

    def add(self, outcome: ImageOutcome) -> None:
        """Take an image in."""
        ...

    def scores(self) -> dict[str, CocoScores]:
        """Of all images, by kind."""
        ...


class PycocotoolsScorer:
    """Matches of each image, a few kB, joined at the end."""

    matched = ALL_KINDS

    def __init__(self, categories: Sequence[Category]) -> None:
        self._categories = categories
        self._matches: dict[str, dict[int, ImageMatches]] = {kind: {} for kind in self.matched}
        self._objects = dict.fromkeys((category["id"] for category in categories), 0)

    def add(self, outcome: ImageOutcome) -> None:
        """Take an image in."""
        for kind in self.matched:
            self._matches[kind][outcome.image["id"]] = outcome.matches[kind]
        for annotation in outcome.truth:
            self._objects[annotation["category_id"]] += not annotation["iscrowd"]

    def scores(self) -> dict[str, CocoScores]:
        """Of all images, by kind."""
        return {
            kind: scores_of(joined(matches, self._objects), self._categories, self._objects)
            for kind, matches in self._matches.items()
        }


class HotcocoScorer(PycocotoolsScorer):
    """Masks and boxes by hotcoco's streaming evaluation; boundary AP, which it does not have, as pycocotools."""

    matched = ("boundary",)

    def __init__(self, categories: Sequence[Category]) -> None:
        super().__init__(categories)
        try:
            from hotcoco import StreamingEval
        except ImportError:
            raise UserError(
                "--coco-api hotcoco needs hotcoco: pip install 'frozen-cache[fast-eval]', or leave the option out"
            ) from None
        self._streams = {
            kind: StreamingEval([dict(category) for category in categories], iou_type=kind) for kind in ("segm", "bbox")
        }

    def add(self, outcome: ImageOutcome) -> None:
        """Take an image in."""
        super().add(outcome)
        for kind, stream in self._streams.items():
            stream.update([outcome.image], outcome.truth, json.loads(outcome.texts[kind]))

    def scores(self) -> dict[str, CocoScores]:
        """Of all images, by kind."""
        found = {}
        for kind, stream in self._streams.items():
            evaluator = stream.finalize()
            with contextlib.redirect_stdout(io.StringIO()):
                evaluator.accumulate()
                evaluator.summarize()
            found[kind] = scores_of(evaluator, self._categories, self._objects)
        return found | super().scores()


def make_scorer(api: CocoApi, categories: Sequence[Category]) -> Scorer:
    """The scorer of that name.

    Raises:
        UserError: hotcoco is not installed.
    """
    return HotcocoScorer(categories) if api == "hotcoco" else PycocotoolsScorer(categories)
