"""What a model has answered so far, kept beside the cache that is made: minutes to hours of work outlive a kill."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress

from frozen_cache.durable import make_folder_durably, names_in, read_regular, remove_tree, write_durably
from frozen_cache.prompted.answers import REFUSALS, Answer
from frozen_cache.remote import CachePath

SECONDS = 30.0
"""Work that a kill may cost."""
PART_BYTES = 1 << 30

Answers = dict[int, Answer]
"""Place of an annotation in its image -> what came of its box."""


class KeptAnswers:
    """Answers for images, in files of a folder. Those of another question (model, options) are not seen.

    Args:
        folder: made where it is missing.
        question: what was asked, of all images.
    """

    def __init__(self, folder: CachePath, question: str) -> None:
        self.folder, self._question = folder, question
        make_folder_durably(folder)
        self._known: dict[int, tuple[int, Answers]] = {}
        self._new: dict[int, tuple[int, Answers]] = {}
        self._parts = 0
        self._written = time.monotonic()
        for name in sorted(names_in(folder)):
            if name.endswith(".json") and not name.startswith("."):
                self._read(folder / name)
                self._parts = max(self._parts, int(name.removesuffix(".json")) + 1)

    def get(self, image_id: int, annotation_sum: int) -> Answers | None:
        """What is kept of an image; None where nothing is, or its annotations were others."""
        told, answers = self._known.get(image_id, (None, {}))
        return answers if told == annotation_sum else None

    def put(self, image_id: int, annotation_sum: int, answers: Mapping[int, Answer]) -> None:
        """Keep the answers of an image; they are on disk SECONDS later, at the latest."""
        self._known[image_id] = self._new[image_id] = annotation_sum, dict(answers)
        if time.monotonic() - self._written >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Put on disk what is not there yet."""
        if self._new:
            images = {
                str(image): [told, {str(place): [each.counts, each.refusal] for place, each in answers.items()}]
                for image, (told, answers) in self._new.items()
            }
            content = json.dumps({"question": self._question, "images": images}).encode()
            write_durably(self.folder / f"{self._parts:06d}.json", content)
            self._parts += 1
            self._new = {}
        self._written = time.monotonic()

    def remove(self) -> None:
        """All of it, once the cache holds it."""
        remove_tree(self.folder)

    def _read(self, part: CachePath) -> None:
        with suppress(ValueError, KeyError, TypeError, AttributeError, IndexError):  # a part that is no use is as none
            content = json.loads(read_regular(part, limit=PART_BYTES))
            if content["question"] != self._question:
                return
            for image, (told, answers) in content["images"].items():
                found = {int(place): Answer(counts, refusal) for place, (counts, refusal) in answers.items()}
                if all(bool(each.counts) != (each.refusal in REFUSALS) for each in found.values()):
                    self._known[int(image)] = told, found
