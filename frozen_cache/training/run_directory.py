"""What a run leaves on disk: `run.json`, `metrics.jsonl`, TensorBoard events, `last` and `best` checkpoints, plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from frozen_cache.cache.attributes import Category
from frozen_cache.durable import write_durably
from frozen_cache.errors import UserError
from frozen_cache.head.inputs import HeadInputs
from frozen_cache.training.config import TrainConfig
from frozen_cache.training.source import RunSource

RUN_FILE = "run.json"


class RunRecord(BaseModel):
    """What fixes a run: enough to rebuild its head and to see which caches it fits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    config: TrainConfig
    inputs: HeadInputs
    encoder_layer: int
    detector: str
    """Name of the detector."""
    detector_fingerprint: str
    cache_fingerprint: str
    categories: list[Category]
    source: RunSource | None = None
    """Where the features came from; None in runs of earlier versions. Paths move, so it decides no comparison."""


class RunDirectory:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record_file = path / RUN_FILE
        self.metrics_file = path / "metrics.jsonl"
        self.last = path / "last.safetensors"
        self.best = path / "best.safetensors"
        self.events = path / "tensorboard"

    def open(self, record: RunRecord, *, resume: bool) -> None:
        """Make the folder, or check that what lies there is this very run.

        Raises:
            UserError: the folder holds something else, another run, or a run that was not asked to be resumed.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--out {self.path} exists and is a file: choose another path")
        if self.record_file.is_file():
            if not resume:
                raise UserError(f"--out {self.path} holds a run already: add --resume to go on, or choose another path")
            differing = differences(load_record(self.path), record)
            if differing:
                raise UserError(f"the run in {self.path} differs from what is asked for: {'; '.join(differing)}")
            return
        # A kill can leave the record behind as it was being written aside: `.run.json.1234`.
        if self.path.is_dir() and any(not entry.name.startswith(f".{RUN_FILE}.") for entry in self.path.iterdir()):
            raise UserError(f"--out {self.path} exists and is no run of train-head: choose another path")
        self.path.mkdir(parents=True, exist_ok=True)
        write_durably(self.record_file, (record.model_dump_json(indent=2) + "\n").encode())

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps behind a checkpoint: they will be made again."""
        if not self.metrics_file.is_file():
            return
        kept = []
        for line in self.metrics_file.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError):
                continue  # the line that a kill cut short
        write_durably(self.metrics_file, "".join(line + "\n" for line in kept).encode())

    def log(self, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl."""
        return [json.loads(line) for line in self.metrics_file.read_text().splitlines()]


def load_record(path: Path) -> RunRecord:
    """The record of the run in a directory; UserError where there is none."""
    file = path / RUN_FILE
    if not file.is_file():
        raise UserError(f"{path} is no run of train-head: there is no {RUN_FILE} in it")
    try:
        return RunRecord.model_validate_json(file.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{file} is damaged or of another version: {where}: {first['msg']}") from error


def differences(old: RunRecord, new: RunRecord) -> list[str]:
    """`key: old, now new` for everything in which two records differ."""
    before, now = (_flat(record.model_dump(mode="json", exclude={"source"})) for record in (old, new))
    return [
        f"{key.removeprefix('config.')} was {before.get(key)}, now {now.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
