"""Reads a launch's records; names what is broken and goes on with the rest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..theory import NoPrediction, UpdateRule
from .foreign_files import (
    MEBIBYTE,
    Unreadable,
    count_in,
    exists,
    number_in,
    read_bytes,
    read_json_object,
    warn_left_out,
)
from .schema import FOLDER, RUN_FILE, TABLES

READERS = 4
"""Parts that are read at a time: a long run has hundreds, and decoding holds no lock."""
MOST_RUN_BYTES = 256 * MEBIBYTE
MOST_PART_BYTES = 2048 * MEBIBYTE
MOST_PART_ROWS = 2**25
"""Rows that a part may claim: constant columns make a file of any length small."""

_DEFAULTS = {  # columns that older records do not have
    "unit": -1,  # version 1 knew whole tensors only
    "angle_factor": 1.0,  # nothing changed set angles before it was recorded
}
_LEAST = {"step": 0, "weight": 0, "unit": -1}
_ENTRY: dict[str, tuple[type, ...]] = {  # what an entry of "weights" may say
    "parameter": (str,),
    "optimizer": (str, NoneType),
    "measured": (bool,),
    "scale_invariant": (bool, NoneType),
    "reason": (str,),
    "rule": (dict, NoneType),
    "no_prediction": (str,),
    "changes": (list,),
    "members": (list, NoneType),
    "norms": (list,),
    "shape": (list,),
    "per_filter": (bool, NoneType),
}


@dataclass
class Launch:
    """The records of one launch: one start or one resume.

    Attributes:
        folder: ``<work_dir>/<timestamp>``.
        run: The content of ``run.json``; empty if there is none.
        problem: Why the records cannot be read; empty where they can, or where there are none.
    """

    folder: Path
    run: dict[str, Any] = field(default_factory=dict)
    problem: str = ""

    @cached_property
    def weights(self) -> pd.DataFrame:
        """One row per measured weight: verdict, update rule, and the reason for both."""
        return pd.DataFrame(self.run.get("weights", []))

    @property
    def samples(self) -> pd.DataFrame:
        """One row per optimizer step and unit, as in :data:`~smd_hooks.records.schema.SAMPLES`.

        Read from disk each time: a thousand runs do not fit into memory. A part that cannot
        be read is named in a warning and left out; so it is in :attr:`layers`.
        """
        return self._read("samples")

    @property
    def layers(self) -> pd.DataFrame:
        """One row per optimizer step, weight and quantity, as in ``LAYERS``; read each time."""
        return self._read("layers")

    def _read(self, table: str) -> pd.DataFrame:
        schema = TABLES[table]
        parts = []
        # an unread run.json leaves rows of nobody knows which weights
        paths = _parts(self.folder / FOLDER, table) if self.run else []
        with ThreadPoolExecutor(READERS) as pool:
            read = list(pool.map(lambda path: _part_or_reason(path, schema), paths))
        for path, part in zip(paths, read, strict=True):
            if isinstance(part, Unreadable):
                warn_left_out(path, part)
            else:
                parts.append(part)
        return pa.concat_tables(parts or [schema.empty_table()]).to_pandas()


def read_launch(launch_folder: Path) -> Launch:
    """Read ``<launch>/smd/``; samples are read when they are asked for.

    A file that cannot be read is named in a warning and left out.
    """
    launch = Launch(Path(launch_folder))
    folder = launch.folder / FOLDER
    path = folder / RUN_FILE
    try:
        if exists(path):
            launch.run = _checked(read_json_object(path, MOST_RUN_BYTES))
        elif exists(folder) and not folder.is_dir():
            path = folder
            raise Unreadable("not a folder of records")
        elif _parts(folder, "samples"):
            path = folder
            raise Unreadable(f"samples without a {RUN_FILE}")
    except (Unreadable, OSError) as reason:
        warn_left_out(path, reason)
        launch.problem = f"{path.relative_to(launch.folder.parent)}: {reason}"
    return launch


def _parts(folder: Path, table: str) -> list[Path]:
    return sorted(folder.glob(f"{table}-*.parquet"))


def _checked(run: dict[str, Any]) -> dict[str, Any]:
    """Hold what is read against what is written, so that nobody else needs to."""
    for name in ("world_size", "first_step", "first_iteration"):
        if name in run and count_in(run[name]) is None:
            raise Unreadable(f"{name} is {run[name]!r}, not a count")
    weights = run.get("weights", [])
    if not isinstance(weights, list):
        raise Unreadable(f"weights is a {type(weights).__name__}, not a list")
    for place, entry in enumerate(weights):
        _check_entry(entry, f"weights[{place}]")
    return run


def _check_entry(entry: Any, where: str) -> None:
    if not isinstance(entry, dict) or "parameter" not in entry:
        raise Unreadable(f"{where} has no parameter")
    for name, types in _ENTRY.items():
        if name in entry and not isinstance(entry[name], types):
            raise Unreadable(f"{where}: {name} is {entry[name]!r}")
    if entry.get("first_step") is not None and count_in(entry["first_step"]) is None:
        raise Unreadable(f"{where}: first_step is {entry['first_step']!r}, not a count")
    if entry.get("rule") is not None:
        _check_rule(entry["rule"], where)
    for change in entry.get("changes", []):
        known = isinstance(change, list) and len(change) == 2
        if not known or number_in(change[0]) is None or change[1] not in (True, False, None):
            raise Unreadable(f"{where}: {change!r} is no change of a verdict")
    for name in ("members", "norms"):
        if not all(isinstance(item, str) for item in entry.get(name) or []):
            raise Unreadable(f"{where}: {name} holds more than names")


def _check_rule(rule: dict[str, Any], where: str) -> None:
    for name, value in rule.items():
        told = name in ("type", "schedule") and isinstance(value, str)
        if not told and not isinstance(value, bool | None) and number_in(value) is None:
            raise Unreadable(f"{where}: {name} of its rule is {value!r}")
    try:
        UpdateRule.from_json(rule)
    except NoPrediction:  # a rule that is not known here: it predicts nothing
        return
    except (TypeError, ValueError) as error:
        raise Unreadable(f"{where}: its rule is none ({error})") from None


def _part_or_reason(path: Path, schema: pa.Schema) -> pa.Table | Unreadable:
    try:
        return _read_part(path, schema)
    except Unreadable as reason:
        return reason


def _read_part(path: Path, schema: pa.Schema) -> pa.Table:
    content = read_bytes(path, MOST_PART_BYTES)
    try:
        part = pq.ParquetFile(pa.BufferReader(content))
        rows = part.metadata.num_rows
        if rows > MOST_PART_ROWS:
            raise Unreadable(f"claims {rows} rows, more than {MOST_PART_ROWS}")
        columns = [name for name in schema.names if name in part.schema_arrow.names]
        found = part.read(columns=columns, use_threads=False)
        arrays = [_column(found, field) for field in schema]
    except (OSError, ValueError, KeyError, MemoryError, pa.ArrowException) as error:
        raise Unreadable(f"not readable ({str(error) or type(error).__name__})") from None
    return pa.table(arrays, schema=schema)


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names:
        if field.name not in _DEFAULTS:
            raise Unreadable(f"has no column {field.name}")
        return pa.repeat(pa.scalar(_DEFAULTS[field.name], field.type), len(table))
    column = table.column(field.name)
    if column.type != field.type:
        raise Unreadable(f"column {field.name} is {column.type}, not {field.type}")
    if column.null_count:
        raise Unreadable(f"column {field.name} has gaps")
    if pa.types.is_string(column.type):
        column.validate(full=True)  # that it is text at all
    if field.name in _LEAST and len(column) and pc.min(column).as_py() < _LEAST[field.name]:
        raise Unreadable(f"column {field.name} goes below {_LEAST[field.name]}")
    return column
