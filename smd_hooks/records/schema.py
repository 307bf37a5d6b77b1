"""Names and types of what is on disk, shared by the writer and the reader.

``smd/`` holds::

    run.json                 layers, verdicts, update rules, versions, seed
    state.json               running, finished or failed, and since when
    samples-<number>.parquet one part per flush
    layers-<number>.parquet  likewise, where representation or noise is measured
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

FOLDER = "smd"
RUN_FILE = "run.json"
STATE_FILE = "state.json"
SCHEMA_VERSION = 2

SAMPLES = pa.schema(
    [
        ("step", pa.int32()),
        ("iteration", pa.int32()),
        ("weight", pa.int16()),  # index into run.json's "weights"
        ("unit", pa.int32()),  # -1: all of it; else the number of the filter
        ("lr", pa.float64()),
        ("weight_decay", pa.float64()),
        ("rescale", pa.float64()),
        ("angle_factor", pa.float64()),
        ("weight_norm", pa.float32()),
        ("gradient_norm", pa.float32()),
        ("gradient_momentum_dot", pa.float32()),
        ("radial_cosine", pa.float32()),
        ("update_norm", pa.float32()),
        ("radial_update", pa.float32()),
        ("angular_update", pa.float32()),
    ]
)
"""One row per optimizer step and unit. Angles in radians."""

LAYERS = pa.schema(
    [
        ("step", pa.int32()),
        ("parameter", pa.string()),
        ("quantity", pa.string()),
        ("value", pa.float64()),
    ]
)
"""What is sampled of some layers at intervals of its own, a row a quantity.

``representation_change``; and ``signal``, ``noise``, ``signal_to_noise``,
``critical_batch_size`` and ``gradient_momentum_alignment``, as the columns of
:meth:`smd_hooks.measure.GradientNoiseProbe.drain`. Readers take a quantity that is missing, as
in older records, for one that was not measured.
"""


TABLES = {"samples": SAMPLES, "layers": LAYERS}
"""Tables that are written in parts, by the name that their files begin with."""


def part_name(table: str, number: int) -> str:
    """Return the file name of a part of a table; parts sort by their numbers."""
    return f"{table}-{number:010d}.parquet"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all: readers never see a half-written file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(content, indent=1), encoding="utf-8")
    beside.replace(path)
