"""``python -m benchmarks speed records``: what the records of a long run at interval 1 cost.

The sums of every step of a run with ResNet-50's layers, made from theory, go the hook's own way:
into the ring, out of it as columns, into Parquet parts; all of that is timed. Then ``smd-hooks
table`` reads them in a process of its own, beside what merely reading the files takes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.errors import UsageError
from benchmarks.provenance import provenance
from benchmarks.speed.generated_runs import (
    KINDS,
    TIMESTAMP,
    begin_run,
    end_run,
    sample_files,
    samples_of,
    settled_rule,
)
from benchmarks.speed.table import table_over
from benchmarks.speed.timing import write_json
from smd_hooks.hooks.recorder import STEPS_BETWEEN_DRAINS
from smd_hooks.measure.geometry import STEP_SUMS
from smd_hooks.measure.momentum import Momentum
from smd_hooks.measure.samples import Sample, SampleRing

STEPS, LAYERS = 100_000, 54
"""ResNet-50 has 53 convolutions and a last layer."""
MOMENTUM = 0.9
PART_SECONDS = 30.0
"""Training between two parts, as the hook's writer has it."""
BYTES, SHARE, SECONDS = 40.0, 0.002, 10.0
"""Limits: of a layer's sample on disk, of the time of training, and of the table over all."""


@dataclass(frozen=True)
class Cost:
    """What the records took.

    Attributes:
        files: Parts.
        size: Bytes of them all.
        writing: Seconds from sums to disk, all steps together.
        table: Seconds of ``smd-hooks table``.
        reading: Seconds to read the parts, and nothing else, in one process.
        scored: The table's angle_ratio.
    """

    files: int
    size: int
    writing: float
    table: float
    reading: float
    scored: float


def add_parser(commands: Any) -> None:
    """Add the ``records`` timing."""
    parser = commands.add_parser(
        "records", help="what the records of a long run cost", description=__doc__
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps, one sample each")
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument(
        "--step-seconds",
        type=float,
        default=0.1,
        help="how long a training step would take: the hook writes a part every "
        f"{PART_SECONDS:g} s (default: 0.1, about batch 256 on one GPU)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write, read, print Markdown; always 0: a benchmark reports."""
    started = time.monotonic()
    for name, least in (("steps", 1000), ("layers", 1)):
        if getattr(args, name) < least:
            raise UsageError(f"--{name} {getattr(args, name)}: give {least} or more")
    if not 0 < args.step_seconds <= PART_SECONDS:
        raise UsageError(f"--step-seconds {args.step_seconds:g}: give up to {PART_SECONDS:g}")
    with tempfile.TemporaryDirectory(prefix="smd-hooks-records-") as folder:
        cost = measure(Path(folder), args.steps, args.layers, args.step_seconds)
    command = (
        f"python -m benchmarks speed records --steps {args.steps} --layers {args.layers} "
        f"--step-seconds {args.step_seconds:g}"
    )
    about = provenance(command, time.monotonic() - started)
    print("\n".join(report(about, cost, args.steps, args.layers, args.step_seconds)))
    if args.json:
        write_json(args.json, {"about": about, **asdict(cost)})
    return 0


def measure(folder: Path, steps: int, layers: int, step_seconds: float) -> Cost:
    """Write a run below a folder, and read it."""
    launch, numbers = folder / "run" / TIMESTAMP, np.arange(steps)
    (kind,) = (one for one in KINDS if one.rescaled)  # in equilibrium after its drop, too
    rule, random = settled_rule(kind, numbers), np.random.default_rng(0)
    columns = samples_of(rule, True, layers, numbers, random)
    sums = sums_of(columns, random).reshape(steps, layers, len(STEP_SUMS))
    chosen = ("lr", "rescale", "weight_decay")
    settings = np.stack([columns[name][::layers] for name in chosen], 1).tolist()
    writer, ring = begin_run(launch, kind, 0, layers, numbers), SampleRing({})
    part = round(PART_SECONDS / step_seconds)
    begun = time.perf_counter()
    for step in range(steps):
        ring.put(_sample(step, layers, *settings[step]), sums[step])
        if (step + 1) % STEPS_BETWEEN_DRAINS == 0 or step + 1 == steps:
            writer.append(ring.read())
            ring.clear()
        if (step + 1) % part == 0:
            writer.flush()
    writer.flush()
    written = time.perf_counter()
    end_run(launch, numbers)
    files = sample_files(folder)
    size = sum(file.stat().st_size for file in files)
    before = time.perf_counter()
    for file in files:
        pq.read_table(file)
    read = time.perf_counter()
    table = table_over(folder, folder / "table.parquet")
    scored = float(table.frame["angle_ratio"].iloc[0])
    return Cost(len(files), size, written - begun, table.seconds, read - before, scored)


def sums_of(columns: dict[str, np.ndarray], random: np.random.Generator) -> torch.Tensor:
    """Return the inner products that samples were made of, shape (rows, 6).

    Gradient and momentum are hardly aligned, and never twice alike: a column that is all the same
    would take no room on disk.
    """
    norm, gradient = columns["weight_norm"], columns["gradient_norm"]
    wg, gg = columns["radial_cosine"] * norm * gradient, gradient**2
    before = random.normal(0, 0.01, len(gg)) * gg
    by_name = {
        "ww": norm**2,
        "wd": columns["radial_update"] * norm,
        "dd": columns["update_norm"] ** 2,
        "gg": gg,
        "wg": wg,
        "bg": MOMENTUM * before + gg + columns["weight_decay"] * wg,
    }
    return torch.from_numpy(np.stack([by_name[name] for name in STEP_SUMS], axis=1))


def _sample(step: int, layers: int, lr: float, rescale: float, weight_decay: float) -> Sample:
    momentum = Momentum("momentum_buffer", MOMENTUM, 1.0, weight_decay)
    return Sample(
        attempt=step,
        iteration=step,
        weights=list(range(layers)),
        counts=[1] * layers,
        lr=[lr] * layers,
        weight_decay=[weight_decay] * layers,
        rescale=[rescale] * layers,
        angle_factor=[1.0] * layers,
        momentum=[momentum] * layers,
        had_buffer=[True] * layers,
    )


def report(
    about: Sequence[str], cost: Cost, steps: int, layers: int, step_seconds: float
) -> list[str]:
    """Put the figures into lines of Markdown."""
    per_sample = cost.size / (steps * layers)
    per_step = cost.writing / steps
    share = per_step / step_seconds
    return [
        "# The cost of a long run's records",
        "",
        *about,
        "",
        f"{steps:,} steps of {layers} layers at interval 1, in {cost.files} parts, one for every",
        f"{PART_SECONDS:g} seconds of a training whose steps take {step_seconds:g} s.",
        "",
        "| what | figure | limit |",
        "| --- | --- | --- |",
        f"| bytes per layer and sample | {per_sample:.1f} | ≤ {BYTES:g}: "
        f"{_judge(per_sample, BYTES)} |",
        f"| from sums to disk, ms per step | {per_step * 1e3:.3f} | |",
        f"| the same, of the training's time | {share:.3%} | ≤ {SHARE:.1%}: "
        f"{_judge(share, SHARE)} |",
        f"| `smd-hooks table`, seconds | {cost.table:.1f} | ≤ {SECONDS:g}: "
        f"{_judge(cost.table, SECONDS)} |",
        f"| merely reading the files, one process, seconds | {cost.reading:.1f} | |",
        f"| megabytes | {cost.size / 1e6:.0f} | |",
        "",
        f"- its angle_ratio, by theory 1: {cost.scored:.3f}",
    ]


def _judge(figure: float, limit: float) -> str:
    return "holds" if figure <= limit else "FAILS"
