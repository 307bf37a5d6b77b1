"""``python -m benchmarks speed table``: what the table of many runs costs.

Work dirs are generated from theory into a temporary folder. Then ``smd-hooks table`` reads,
scores and diagnoses them in a process of its own, beside what merely reading the files of
samples takes in one process.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from benchmarks.errors import UsageError
from benchmarks.provenance import provenance
from benchmarks.speed.generated_runs import KINDS, generate_runs, sample_files
from benchmarks.speed.timing import write_json

RUNS, LAYERS, SAMPLES = 1_000, 50, 1_000
SECONDS, GIBIBYTES, CORES = 60.0, 2.0, 2
"""Limits of a table of so many runs, layers and samples, on so many cores."""
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Cost:
    """What the table took.

    Attributes:
        generating: Seconds to write the runs.
        files: Number of files of samples.
        megabytes: Their size.
        reading: Seconds to read these, and nothing else, in one process.
        table: Seconds of the command, from its start to its end.
        processors: Seconds that its processes computed, together: what is left of ``table``
            on a machine that does other things, too.
        memory: Most memory of its processes together, GiB: the sum of their resident sets.
        rows: Rows of the table.
        scored: Rows with an ``angle_ratio``.
        verdicts: How many rows of which kind of run have which verdict.
    """

    generating: float
    files: int
    megabytes: float
    reading: float
    table: float
    processors: float
    memory: float
    rows: int
    scored: int
    verdicts: dict[str, dict[str, int]]


def add_parser(commands: Any) -> None:
    """Add the ``table`` timing."""
    parser = commands.add_parser(
        "table", help="what the table of many runs costs", description=__doc__
    )
    parser.add_argument("--runs", type=int, default=RUNS, help="work dirs to generate")
    parser.add_argument("--layers", type=int, default=LAYERS, help="scale-invariant layers each")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="samples per layer")
    parser.add_argument("--interval", type=int, default=1, help="steps from sample to sample")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Generate, time, print Markdown; always 0: a benchmark reports."""
    started = time.monotonic()
    for name, least in (("runs", 1), ("layers", 1), ("samples", 50), ("interval", 1)):
        if getattr(args, name) < least:
            raise UsageError(f"--{name} {getattr(args, name)}: give {least} or more")
    with tempfile.TemporaryDirectory(prefix="smd-hooks-table-") as folder:
        cost = measure(Path(folder), args.runs, args.layers, args.samples, args.interval)
    command = (
        f"python -m benchmarks speed table --runs {args.runs} --layers {args.layers} "
        f"--samples {args.samples} --interval {args.interval}"
    )
    about = provenance(command, time.monotonic() - started)
    print("\n".join(report(about, cost, args.runs, args.layers, args.samples, args.interval)))
    if args.json:
        write_json(args.json, {"about": about, **asdict(cost)})
    return 0


def measure(folder: Path, runs: int, layers: int, samples: int, interval: int) -> Cost:
    """Generate runs below a folder and time the table over them.

    Raises:
        RuntimeError: The command failed.
    """
    work_dirs, output = folder / "work_dirs", folder / "table.parquet"
    begun = time.perf_counter()
    generate_runs(work_dirs, runs, layers, samples, interval)
    generated = time.perf_counter()
    files = sample_files(work_dirs)
    for file in files:
        pq.read_table(file)
    read = time.perf_counter()
    table = table_over(work_dirs, output)
    kinds = table.frame["run"].str.split("-").str[0]
    return Cost(
        generating=generated - begun,
        files=len(files),
        megabytes=sum(file.stat().st_size for file in files) / 1e6,
        reading=read - generated,
        table=table.seconds,
        processors=table.processors,
        memory=table.memory / 2**30,
        rows=len(table.frame),
        scored=int(table.frame["angle_ratio"].notna().sum()),
        verdicts={
            kind.name: table.frame["verdict"][kinds == kind.name].value_counts().to_dict()
            for kind in KINDS
        },
    )


@dataclass(frozen=True)
class Table:
    """What the command made, and took.

    Attributes:
        frame: The table.
        seconds: From its start to its end.
        processors: Seconds that its processes computed, together.
        memory: Most bytes of its processes together.
    """

    frame: pd.DataFrame
    seconds: float
    processors: float
    memory: int


def table_over(work_dirs: Path, output: Path) -> Table:
    """Run ``smd-hooks table`` in a process of its own.

    Args:
        work_dirs: What it reads.
        output: The Parquet file that it writes.

    Raises:
        RuntimeError: The command failed.
    """
    command = [sys.executable, "-c", "import sys; from smd_hooks.cli import main; sys.exit(main())"]
    begun, computed = time.perf_counter(), _children_computed()
    memory = _peak_memory([*command, "table", str(work_dirs), "-o", str(output)])
    seconds = time.perf_counter() - begun
    return Table(pd.read_parquet(output), seconds, _children_computed() - computed, memory)


def _children_computed() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak_memory(command: Sequence[str]) -> int:
    """Run a command; return the most bytes that it and its descendants held together."""
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(_resident, _descendants(process.pid))))
            time.sleep(POLL_SECONDS)
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace").strip()
    if process.returncode:
        raise RuntimeError(f"smd-hooks table ended with {process.returncode}: {said}")
    return peak


def _descendants(root: int) -> list[int]:
    """A process and all that it started, as /proc has them."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parents.setdefault(_parent(entry), []).append(int(entry.name))
    found = [root]
    for pid in found:  # grows as it goes
        found += parents.get(pid, [])
    return found


def _parent(process: Path) -> int:
    try:
        # the name, in brackets, may hold anything
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # ended meanwhile
        return 0


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def report(
    about: Sequence[str], cost: Cost, runs: int, layers: int, samples: int, interval: int
) -> list[str]:
    """Put the figures into lines of Markdown."""
    steps = f"{samples} samples, one every {interval} steps" if interval > 1 else f"{samples} steps"
    limited = (runs, layers, samples) == (RUNS, LAYERS, SAMPLES)
    time_limit, memory_limit = ("", "")
    if limited:
        time_limit = f" ≤ {SECONDS:g} on {CORES} cores: {_judge(cost.table, SECONDS)}"
        memory_limit = f" ≤ {GIBIBYTES:g}: {_judge(cost.memory, GIBIBYTES)}"
    return [
        "# The cost of a table",
        "",
        *about,
        "",
        f"{runs} generated runs of {layers} layers and {steps} each, through one drop of the",
        f"learning rate: {cost.files} files of samples, {cost.megabytes:.0f} MB.",
        "",
        "| what | seconds | computing | GiB |",
        "| --- | --- | --- | --- |",
        f"| `smd-hooks table` | {cost.table:.1f}{time_limit} | {cost.processors:.1f} | "
        f"{cost.memory:.2f}{memory_limit} |",
        f"| merely reading the files, one process | {cost.reading:.1f} | | |",
        f"| generating them | {cost.generating:.1f} | | |",
        "",
        f"- rows: {cost.rows}, of which {cost.scored} with an angle_ratio",
        *(
            f"- {kind}: {', '.join(f'{count} × {text!r}' for text, count in told.items())}"
            for kind, told in cost.verdicts.items()
        ),
        "- computing: processor seconds of all its processes",
        "- GiB: these processes together, resident, at the peak; shared pages count twice",
    ]


def _judge(figure: float, limit: float) -> str:
    return "holds" if figure <= limit else "FAILS"
