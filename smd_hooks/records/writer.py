"""Writes a run's records so that a killed run loses no file."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .schema import FOLDER, RUN_FILE, SCHEMA_VERSION, TABLES, part_name, write_json


class RecordWriter:
    """Collects drained samples and writes them as Parquet parts.

    A disk that is full or away for a while must not end a training: what could not be
    written is kept and tried again at the next flush, and a warning says so once.

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
        self._run: dict[str, Any] | None = None
        self._in_trouble = False

    def write_run(self, description: Mapping[str, Any]) -> None:
        """Write or replace ``run.json``."""
        self._run = {"schema": SCHEMA_VERSION, **description}
        self._try(self._write_run)

    def append(self, columns: Mapping[str, np.ndarray], table: str = "samples") -> None:
        """Take rows of a table as its probe drains them; write when it is time."""
        if len(columns["step"]):
            self._pending[table].append(columns)
        if time.monotonic() - self._written_at >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is pending, each table as one part, whole, then renamed into place."""
        self._written_at = time.monotonic()
        self._try(self._write_all)

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if not self._in_trouble:
                warnings.warn(f"{self.folder}: not written, kept for later ({error})", stacklevel=3)
            self._in_trouble = True
        else:
            self._in_trouble = False

    def _write_run(self) -> None:
        if self._run is not None:
            write_json(self.folder / RUN_FILE, self._run)
            self._run = None

    def _write_all(self) -> None:
        self._write_run()
        for table, pending in self._pending.items():
            if pending:
                self._write(table, pending)
                pending.clear()

    def _write(self, table: str, pending: list[Mapping[str, np.ndarray]]) -> None:
        schema, name = TABLES[table], part_name(table, self._parts[table])
        columns = [np.concatenate([part[field.name] for part in pending]) for field in schema]
        arrays = [pa.array(c).cast(f.type) for c, f in zip(columns, schema, strict=True)]
        beside = self.folder / f".{name}"
        with open(beside, "wb") as file:  # by itself pyarrow opens no path that is not UTF-8
            pq.write_table(pa.table(arrays, schema=schema), file, compression="zstd")
        beside.replace(self.folder / name)
        self._parts[table] += 1
