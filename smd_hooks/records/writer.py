"""Writes a run's records so that a killed run loses no file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .schema import FOLDER, RUN_FILE, SAMPLES, SCHEMA_VERSION, part_name, write_json


class RecordWriter:
    """Collects drained samples and writes them as Parquet parts.

    Args:
        launch_folder: ``<work_dir>/<timestamp>``; its ``smd/`` is made.
        seconds_between_parts: How much training a killed run may lose.
    """

    def __init__(self, launch_folder: Path, seconds_between_parts: float = 30.0) -> None:
        self.folder = Path(launch_folder) / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self._seconds = seconds_between_parts
        self._pending: list[Mapping[str, np.ndarray]] = []
        self._written_at = time.monotonic()

    def write_run(self, description: Mapping[str, Any]) -> None:
        """Write or replace ``run.json``."""
        write_json(self.folder / RUN_FILE, {"schema": SCHEMA_VERSION, **description})

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        """Take samples as :meth:`StepProbe.drain` returns them; write when it is time."""
        if len(columns["step"]):
            self._pending.append(columns)
        if time.monotonic() - self._written_at >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one part, whole, then rename it into place."""
        self._written_at = time.monotonic()
        if not self._pending:
            return
        columns = {
            name: np.concatenate([part[name] for part in self._pending]) for name in SAMPLES.names
        }
        table = pa.table([pa.array(columns[f.name]).cast(f.type) for f in SAMPLES], schema=SAMPLES)
        name = part_name(int(columns["step"][0]))
        beside = self.folder / f".{name}"
        pq.write_table(table, beside, compression="zstd")
        beside.replace(self.folder / name)
        self._pending = []
