"""Names and types of what is on disk, shared by the writer and the reader.

``smd/`` holds::

    run.json                 layers, verdicts, update rules, versions, seed
    state.json               running, finished or failed, and since when
    samples-<step>.parquet   one part per flush, named by its first optimizer step
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
PART_GLOB = "samples-*.parquet"
SCHEMA_VERSION = 1

SAMPLES = pa.schema(
    [
        ("step", pa.int32()),
        ("iteration", pa.int32()),
        ("weight", pa.int16()),  # index into run.json's "weights"
        ("lr", pa.float64()),
        ("weight_decay", pa.float64()),
        ("rescale", pa.float64()),
        ("weight_norm", pa.float32()),
        ("gradient_norm", pa.float32()),
        ("gradient_momentum_dot", pa.float32()),
        ("radial_cosine", pa.float32()),
        ("update_norm", pa.float32()),
        ("angular_update", pa.float32()),
    ]
)
"""One row per optimizer step and weight. Angles in radians."""


def part_name(first_step: int) -> str:
    """Return the file name of the part whose first sample is at ``first_step``."""
    return f"samples-{first_step:010d}.parquet"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all: readers never see a half-written file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(content, indent=1), encoding="utf-8")
    beside.replace(path)
