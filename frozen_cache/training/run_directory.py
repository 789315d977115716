"""What a run leaves on disk: `run.json`, `metrics.jsonl`, TensorBoard events, `last` and `best` checkpoints, plots."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator, ValidationError

from frozen_cache.cache.attributes import Category
from frozen_cache.durable import write_durably
from frozen_cache.errors import UserError
from frozen_cache.finite_json import finite_json
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.ownership import content_names
from frozen_cache.remote import CachePath, cache_path
from frozen_cache.training.checkpoint import load_metadata
from frozen_cache.training.config import TrainConfig
from frozen_cache.training.progress import Progress, read_progress
from frozen_cache.training.source import RunSource

RUN_FILE = "run.json"
HINTS = {"source", "cache", "val_cache", "preset", "init_from"}
"""Fields of a record that say where things lay: paths move, so they decide no comparison."""
NO_SETTINGS = HINTS | {"finished", "id"}
MOST_DIFFERENCES = 4
FINGERPRINTS = {
    "cache_fingerprint": "the training data",
    "detector_fingerprint": "the detector",
    "val_fingerprint": "the validation data",
}
"""What the fields that hold a sha256 are of, in words."""
NOT_FINISHED = "not finished; the same command goes on with it"
"""What `README.md` says of a run from its start until all its files are written, for people."""


SavedPlace = Annotated[CachePath, PlainValidator(cache_path), PlainSerializer(str, return_type=str)]


class RunRecord(BaseModel):
    """What fixes a run: enough to rebuild its head and to see which caches it fits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    id: str | None = None
    """Random, and in the run's checkpoints too; None in runs of earlier versions."""
    config: TrainConfig
    inputs: HeadInputs
    encoder_layer: int
    detector: str
    """Name of the detector."""
    detector_fingerprint: str
    cache_fingerprint: str
    val_fingerprint: str | None = None
    """Of the cache that picks the best checkpoint."""
    categories: list[Category]
    source: RunSource | None = None
    """Where the features came from; None in runs of earlier versions."""
    preset: str | None = None
    """The recipe that the configuration began with."""
    cache: SavedPlace | None = None
    val_cache: SavedPlace | None = None
    init: str | None = None
    """sha256 of the checkpoint that the weights began with; None where they began at random."""
    init_from: Path | None = None
    """Where that lay."""
    finished: bool | None = None
    """Whether all files of the run have been written; None in runs of earlier versions, whose README tells it."""

    @property
    def detector_name(self) -> str:
        """As `HeadRecord` calls it."""
        return self.detector

    @property
    def head(self) -> HeadConfig:
        """How the head is built."""
        return self.config.head

    @property
    def backbone_scale(self) -> int | None:
        """C1 and the added maps came from the images at so many times the input size; None where that is not known."""
        return self.config.head.c1_scale if self.source is None else self.source.spec.backbone_scale

    @property
    def marks(self) -> dict[str, str]:
        """What the metadata of the run's checkpoints say of it."""
        known = {"detector_fingerprint": self.detector_fingerprint, "cache_fingerprint": self.cache_fingerprint}
        return known if self.id is None else known | {"run": self.id}

    def settings(self) -> dict[str, Any]:
        """The configuration, nested, for people."""
        return self.config.model_dump(mode="json")


class Start(BaseModel):
    """One start of a run: a line of `starts.jsonl`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    time: str
    machine: str
    code: str
    """Version and commit of frozen-cache."""
    torch: str
    device: str
    attention: str = ""
    """The backend that samples for deformable attention; empty in runs of earlier versions."""
    processes: int
    from_step: int
    to_step: int
    changed: list[str] = []
    """What differs from the start before."""


class RunDirectory:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record_file = path / RUN_FILE
        self.metrics_file = path / "metrics.jsonl"
        self.starts_file = path / "starts.jsonl"
        self.readme = path / "README.md"
        self.last = path / "last.safetensors"
        self.best = path / "best.safetensors"
        self.events = path / "tensorboard"

    def check_folder(self) -> None:
        """UserError where the folder is a file, or holds things and no run."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--out {self.path} exists and is a file: choose another path")
        names = content_names(self.path)  # first: another process of this training may be making the record
        if self.record_file.is_file():
            return
        # A kill can leave the record behind as it was being written aside: `.run.json.1234`.
        if any(not name.startswith(f".{RUN_FILE}.") for name in names):
            raise UserError(f"--out {self.path} exists and is no run of train-head: choose another path")

    def open(self, record: RunRecord, *, total: int, resume: bool) -> list[str]:
        """Make the run, or check that what lies there is this very run and is not finished.

        Only the length of a run may differ, and only where `resume` asks for it: it is prolonged then.

        Args:
            total: steps of the whole run as it is asked for now.

        Returns:
            What differs from the run that was there.

        Raises:
            UserError: the folder holds something else, another run, or this one, finished, and it was not asked for.
                A run that was stopped between its last step and its last file is not finished.
        """
        self.check_folder()
        if not self.record_file.is_file():
            self.write_record(record)
            return []
        there = load_record(self.path)
        found = differences(there, record)
        length = [text for text in found if text.startswith(("optim.epochs ", "optim.min_steps "))]
        if others := [text for text in found if text not in length]:
            more = f"; and {len(others) - MOST_DIFFERENCES} more" if len(others) > MOST_DIFFERENCES else ""
            raise UserError(
                f"--out {self.path} holds a run that differs from what is asked for: "
                f"{'; '.join(others[:MOST_DIFFERENCES])}{more}. Choose another path, or, to go on with it by its own "
                "settings, give --resume without other settings"
            )
        done = self.progress().step
        if length and not resume:
            raise UserError(
                f"--out {self.path} holds this run at another length ({'; '.join(length)}): add --resume to give it "
                "this one, or choose another path"
            )
        if length and done > total:
            raise UserError(f"the run in {self.path} has done {done:,} steps, more than the {total:,} asked for")
        if done >= total and not resume and not self.lacks_end():
            raise UserError(
                f"--out {self.path} holds this run, finished: `frozen-cache evaluate --head {self.path}` measures it, "
                "--resume with more --epochs prolongs it; else choose another path"
            )
        if length or record.val_fingerprint != there.val_fingerprint:
            kept = {"id": there.id, "finished": False if length else there.finished}
            self.write_record(record.model_copy(update=kept))
        return found

    def write_record(self, record: RunRecord) -> None:
        """Write `run.json`."""
        write_durably(self.record_file, (record.model_dump_json(indent=2) + "\n").encode())

    def progress(self) -> Progress:
        """Where the `last` checkpoint stands; at the start where there is none."""
        if not self.last.is_file():
            return Progress()
        saved = load_metadata(self.last)
        check_marks(load_record(self.path), saved, self.last)
        try:
            return read_progress(saved)
        except ValueError as error:
            raise UserError(f"{self.last} is no checkpoint to go on from: {error}") from error

    def lacks_end(self) -> bool:
        """Whether files of the run are still to be written; runs of earlier versions without a README lack none."""
        finished = load_record(self.path).finished
        if finished is not None:
            return not finished
        return self.readme.is_file() and NOT_FINISHED.encode() in self.readme.read_bytes()

    def set_finished(self, finished: bool) -> None:
        """Put into `run.json` whether all files of the run have been written."""
        there = load_record(self.path)
        if there.finished is not finished:
            self.write_record(there.model_copy(update={"finished": finished}))

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps behind a checkpoint: they will be made again."""
        if not self.metrics_file.is_file():
            return
        kept = [line for line in self._lines() if isinstance(at := line.get("step"), int) and at <= step]
        write_durably(self.metrics_file, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def log(self, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl; NotFiniteError where a number in it is not finite."""
        line = finite_json(values, path=self.metrics_file)
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def note(self, start: Start) -> None:
        """Append one line to starts.jsonl."""
        with self.starts_file.open("a", encoding="utf-8") as file:
            file.write(start.model_dump_json() + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl."""
        return self._lines() if self.metrics_file.is_file() else []

    def _lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self.metrics_file.read_bytes().splitlines():
            try:
                values = json.loads(line)
            except ValueError:
                continue  # the line that a kill cut short
            if isinstance(values, dict):
                found.append(values)
        return found


def load_record(path: Path) -> RunRecord:
    """The record of the run in a directory; UserError where there is none."""
    file = path / RUN_FILE
    if not file.is_file():
        raise UserError(f"{path} is no run of train-head: there is no {RUN_FILE} in it")
    try:
        return RunRecord.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise UserError(f"{file} is damaged or of another version: {where}: {first['msg']}") from error


def check_marks(record: RunRecord, saved: dict[str, Any], file: Path) -> None:
    """UserError where a checkpoint, by its metadata, is of another run than the record."""
    if any(saved.get(key) != value for key, value in record.marks.items()):
        raise UserError(
            f"{file} was written by another run than the one whose {RUN_FILE} lies beside it: put each into the folder "
            "of its own run"
        )


def differences(old: RunRecord, new: RunRecord) -> list[str]:
    """`key was old, now new` for everything in which two records differ, fingerprints in words."""
    before, now = (_flat(record.model_dump(mode="json", exclude=NO_SETTINGS)) for record in (old, new))
    if old.val_fingerprint is None:  # there was no validation, and so no best checkpoint that it could spoil
        now["val_fingerprint"] = None
    return [
        f"{FINGERPRINTS.get(key) or key.removeprefix('config.')} was {_short(before.get(key))}, "
        f"now {_short(now.get(key))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def _short(value: Any) -> str:
    text = str(value)
    if re.fullmatch("[0-9a-f]{64}", text):
        return text[:12]
    return text if len(text) <= 60 else f"{text[:40]}..."


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
