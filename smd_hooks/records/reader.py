"""Reads a launch's records; names what is broken and goes on with the rest."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .schema import FOLDER, LAYERS, RUN_FILE, SAMPLES, TABLES


@dataclass
class Launch:
    """The records of one launch: one start or one resume.

    Attributes:
        folder: ``<work_dir>/<timestamp>``.
        run: The content of ``run.json``; empty if there is none.
        samples: One row per optimizer step and unit, in the order of
            :data:`~smd_hooks.records.schema.SAMPLES`.
        layers: One row per optimizer step, weight and quantity, as in
            :data:`~smd_hooks.records.schema.LAYERS`.
    """

    folder: Path
    run: dict[str, Any] = field(default_factory=dict)
    samples: pd.DataFrame = field(default_factory=lambda: SAMPLES.empty_table().to_pandas())
    layers: pd.DataFrame = field(default_factory=lambda: LAYERS.empty_table().to_pandas())

    @property
    def weights(self) -> pd.DataFrame:
        """One row per measured weight: verdict, update rule, and the reason for both."""
        return pd.DataFrame(self.run.get("weights", []))


def read_launch(launch_folder: Path) -> Launch:
    """Read ``<launch>/smd/``.

    A file that cannot be read is named in a warning and left out.
    """
    launch = Launch(Path(launch_folder))
    folder = launch.folder / FOLDER
    if not (folder / RUN_FILE).is_file():
        return launch
    try:
        launch.run = dict(json.loads((folder / RUN_FILE).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        warnings.warn(f"{folder / RUN_FILE}: left out, not readable ({error})", stacklevel=2)
        return launch
    launch.samples = _read_table(folder, "samples")
    launch.layers = _read_table(folder, "layers")
    return launch


def _read_table(folder: Path, table: str) -> pd.DataFrame:
    schema = TABLES[table]
    parts = [schema.empty_table()]
    for path in sorted(folder.glob(f"{table}-*.parquet")):
        try:
            parts.append(pq.read_table(path, schema=schema))
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0]
            warnings.warn(f"{path}: left out, not readable ({reason})", stacklevel=3)
    frame = pa.concat_tables(parts).to_pandas()
    if "unit" in frame:  # records of version 1 know whole tensors only
        frame["unit"] = frame["unit"].fillna(-1).astype("int32")
    if "angle_factor" in frame:  # nothing changed set angles before it was recorded
        frame["angle_factor"] = frame["angle_factor"].fillna(1.0)
    return frame
