"""Writes a run's records so that a killed run loses no file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .schema import FOLDER, RUN_FILE, SCHEMA_VERSION, TABLES, part_name, write_json


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
        self._pending: dict[str, list[Mapping[str, np.ndarray]]] = {name: [] for name in TABLES}
        self._parts = dict.fromkeys(TABLES, 0)
        self._written_at = time.monotonic()

    def write_run(self, description: Mapping[str, Any]) -> None:
        """Write or replace ``run.json``."""
        write_json(self.folder / RUN_FILE, {"schema": SCHEMA_VERSION, **description})

    def append(self, columns: Mapping[str, np.ndarray], table: str = "samples") -> None:
        """Take rows of a table as its probe drains them; write when it is time."""
        if len(columns["step"]):
            self._pending[table].append(columns)
        if time.monotonic() - self._written_at >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is pending, each table as one part, whole, then renamed into place."""
        self._written_at = time.monotonic()
        for table, pending in self._pending.items():
            if pending:
                self._write(table, pending)
                pending.clear()

    def _write(self, table: str, pending: list[Mapping[str, np.ndarray]]) -> None:
        schema, name = TABLES[table], part_name(table, self._parts[table])
        columns = [np.concatenate([part[field.name] for part in pending]) for field in schema]
        arrays = [pa.array(c).cast(f.type) for c, f in zip(columns, schema, strict=True)]
        beside = self.folder / f".{name}"
        pq.write_table(pa.table(arrays, schema=schema), beside, compression="zstd")
        beside.replace(self.folder / name)
        self._parts[table] += 1
