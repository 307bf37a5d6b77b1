"""Several ``python -m benchmarks run`` beside each other, with a bar for each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smd_hooks.records import PlannedRun, read_state, write_suite

POLL_SECONDS = 1.0
MOST_BARS = 8
"""Trainings up to which each has its bar all the time; of more, those that run."""


@dataclass
class Training:
    """One ``python -m benchmarks run``, its console in a file, its progress in its records.

    Attributes:
        name: What its bar is called.
        config: Path of its config.
        work_dir: Where it goes.
        options: Further arguments of ``run``.
        planned: What a suite says of it, but for its config.
    """

    name: str
    config: str
    work_dir: Path
    options: Sequence[str] = ()
    planned: PlannedRun = field(default_factory=lambda: PlannedRun(""))
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _launched_at: float = field(default=0.0, repr=False)

    @property
    def console_file(self) -> Path:
        """What it printed."""
        return self.work_dir / "console.log"

    def start(self) -> None:
        """Launch it; does not wait."""
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self._launched_at = time.time()
        command = [sys.executable, "-m", "benchmarks", "run", self.config]
        with open(self.console_file, "wb") as console:
            self._process = subprocess.Popen(
                [*command, "--work-dir", str(self.work_dir), *self.options],
                stdout=console,
                stderr=subprocess.STDOUT,
                # one thread each: two spinning threads per process cost more than they bring
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    @property
    def returncode(self) -> int | None:
        """Its exit code; None as long as it has none."""
        return self._process.poll() if self._process else None

    def stop(self) -> None:
        """End it if it runs."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def progress(self) -> tuple[int, int | None]:
        """Iterations done and planned, from the newest launch's state."""
        for folder in sorted(self.work_dir.glob("*_*/"), reverse=True):
            state = read_state(folder)
            if state is not None and state.updated >= self._launched_at:
                return state.iteration, state.max_iterations
        return 0, None

    def last_words(self) -> str:
        """The last line of its console, and where the rest is."""
        lines = self.console_file.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'no output'} (see {self.console_file})"


def train(trainings: Sequence[Training], jobs: int | None = None) -> list[Training]:
    """Run all, so many at a time, the first ones first; one that fails ends no other.

    Whatever ends this early (Ctrl-C, an error) ends them, too. What is planned, and what
    failed, goes to ``suite.json`` beside the work dirs: ``smd-hooks table`` shows runs that
    left nothing else behind.

    Args:
        trainings: What is run.
        jobs: How many at a time; default: as many as there are cores.

    Returns:
        Those that failed.
    """
    write_plan(trainings)
    try:
        _train(list(trainings), slots=jobs or os.cpu_count() or 1)
    finally:
        for training in trainings:
            training.stop()
        failed = [training for training in trainings if training.returncode]
        write_plan(failed)
    return failed


def write_plan(trainings: Sequence[Training]) -> None:
    """Write into the folder that holds the work dirs what is planned, and what has failed."""
    suites: dict[Path, dict[str, PlannedRun]] = defaultdict(dict)
    for training in trainings:
        failed = training.last_words() if training.returncode else ""
        place = training.work_dir
        entry = replace(training.planned, config=training.config, failed=failed)
        suites[place.parent][place.name] = entry
    for folder, planned in suites.items():
        write_suite(folder, planned)


def _train(waiting: list[Training], slots: int) -> None:
    running: list[Training] = []
    columns = (
        TextColumn("{task.description:>24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    few = len(waiting) <= MOST_BARS
    with Progress(*columns) as bars:
        runs = bars.add_task("runs", total=len(waiting), visible=not few)
        tasks = {t.name: bars.add_task(t.name, total=None, visible=few) for t in waiting}
        while waiting or running:
            while waiting and len(running) < slots:
                running.append(waiting.pop(0))
                running[-1].start()
                bars.update(tasks[running[-1].name], visible=True)
            time.sleep(POLL_SECONDS)
            for training in running:
                done, planned = training.progress()
                bars.update(tasks[training.name], completed=done, total=planned)
            ended = [t for t in running if t.returncode is not None]
            write_plan([t for t in ended if t.returncode])
            for training in ended:
                running.remove(training)
                bars.advance(runs)
                bars.update(tasks[training.name], visible=few)
