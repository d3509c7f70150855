"""What trackers have kept of a run, read back by their own readers: name -> [(step, value), ...]."""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

Told = dict[str, list[tuple[int, float]]]


def tensorboard(track: Path) -> Told:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(track / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def wandb(track: Path) -> Told:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    told: Told = defaultdict(list)
    for file in sorted(track.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        for data in log_records(file.read_bytes()[7:]):
            record = Record()
            record.ParseFromString(data)
            items = [(i.key, *i.nested_key, json.loads(i.value_json)) for i in record.history.item]
            row = {key or nested[0]: value for key, *nested, value in items if len(nested) < 2}
            for name, value in row.items():
                if isinstance(value, int | float) and not name.startswith("_"):
                    told[name].append((row["_step"], value))
    return told


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of a log as LevelDB writes them: blocks of 32 KiB (the first one began 7 bytes earlier);
    fragments with checksum, length and kind before them: 1 whole, 2 first, 3 in between, 4 last.
    """
    place, whole = 0, b""
    while place + 7 <= len(data):
        left = 32768 - (place + 7) % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


def trackio(track: Path) -> Told:
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = (name for name in SQLiteStorage.get_runs("sparring") if name.startswith(track.parent.name))
    told: Told = defaultdict(list)
    for row in SQLiteStorage.get_logs("sparring", run):
        for name, value in row.items():
            if "/" in name and isinstance(value, int | float):
                told[name].append((row["step"], value))
    return told


def mlflow(track: Path) -> Told:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{track / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'sparring'")
    (run,) = client.search_runs([experiment.experiment_id])
    return {
        name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


READERS = {"tensorboard": tensorboard, "wandb": wandb, "trackio": trackio, "mlflow": mlflow}
