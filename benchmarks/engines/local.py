"""Several ``python -m benchmarks run`` beside each other, with a bar for each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.launch.interrupts import as_interrupts
from smd_hooks.records import PlannedRun, read_state, write_suite

POLL_SECONDS = 1.0
PATIENCE = 30.0
"""Seconds in which a training that was told to end may do so by itself."""
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
        processes: How many train it together, under torchrun if more than one; each has a GPU.
    """

    name: str
    config: str
    work_dir: Path
    options: Sequence[str] = ()
    planned: PlannedRun = field(default_factory=lambda: PlannedRun(""))
    processes: int = 1
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _launched_at: float = field(default=0.0, repr=False)

    @property
    def console_file(self) -> Path:
        """What it printed."""
        return self.work_dir / "console.log"

    @property
    def command(self) -> list[str]:
        """What is launched."""
        own = ["benchmarks", "run", self.config, "--work-dir", str(self.work_dir), *self.options]
        if self.processes == 1:
            return [sys.executable, "-m", *own]
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc_per_node={self.processes}"]
        own[2:2] = ["--launcher", "pytorch"]  # before --cfg-options, which takes all that follows
        return [sys.executable, "-m", *torchrun, "-m", *own]

    def start(self, gpus: Sequence[str] = ()) -> None:
        """Launch it; does not wait.

        Args:
            gpus: Those that it may use, as ``CUDA_VISIBLE_DEVICES`` calls them; none for all.
        """
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self._launched_at = time.time()
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
        with open(self.console_file, "wb") as console:
            self._process = subprocess.Popen(
                self.command,
                stdout=console,
                stderr=subprocess.STDOUT,
                # one thread each: two spinning threads per process cost more than they bring
                env={**os.environ, "OMP_NUM_THREADS": "1", **visible},
                # a Ctrl-C reaches it once, by us; and with it end all that it has started
                start_new_session=True,
            )

    @property
    def returncode(self) -> int | None:
        """Its exit code; None as long as it has none."""
        return self._process.poll() if self._process else None

    def terminate(self) -> None:
        """Tell it to end, if it runs."""
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def kill(self, after: float) -> None:
        """Wait until it has ended, so many seconds; then end it, and what it has started."""
        if self._process is None or self._process.poll() is not None:
            return
        try:
            self._process.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def progress(self) -> tuple[int, int | None]:
        """Iterations done and planned, from the newest launch's state."""
        for folder in sorted(self.work_dir.glob("*_*/"), reverse=True):
            state = read_state(folder)
            if state is not None and state.updated >= self._launched_at:
                return state.iteration, state.max_iterations
        return 0, None

    def last_words(self) -> str:
        """The last line of its console, or the first error it names; and where the rest is."""
        lines = self.console_file.read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")]  # torchrun talks on
        told = [*errors[:1], *lines[-1:], "no output"]
        return f"{told[0]} (see {self.console_file})"


def train(
    trainings: Sequence[Training], jobs: int | None = None, gpus: Sequence[str] = ()
) -> list[Training]:
    """Run all, so many at a time, the first ones first; one that fails ends no other.

    Whatever ends this early (Ctrl-C, SIGTERM, an error) ends them, too. What is planned, and
    what failed, goes to ``suite.json`` beside the work dirs: ``smd-hooks table`` shows runs that
    left nothing else behind.

    Args:
        trainings: What is run.
        jobs: How many at a time; default: as many as there are GPUs for, or cores.
        gpus: What they share, as ``CUDA_VISIBLE_DEVICES`` calls them; none for what each finds.

    Returns:
        Those that failed.
    """
    write_plan(trainings)
    with as_interrupts():
        try:
            _train(list(trainings), jobs, gpus)
        finally:
            try:
                _stop(trainings)
            finally:
                failed = [training for training in trainings if training.returncode]
                write_plan(failed)
    return failed


def _stop(trainings: Sequence[Training]) -> None:
    """End what runs: asked to, then, or at the next Ctrl-C, by force."""
    until = time.monotonic() + PATIENCE
    try:
        for training in trainings:
            training.terminate()
        for training in trainings:
            training.kill(after=max(0.0, until - time.monotonic()))
    finally:
        for training in trainings:
            training.kill(after=0.0)


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


def _places(
    training: Training,
    running: Mapping[str, Sequence[str]],
    jobs: int | None,
    gpus: Sequence[str],
) -> list[str] | None:
    """Which GPUs a training gets beside those that run; None as long as it has to wait.

    Those with the fewest trainings: who asks for so many jobs has them share.
    """
    load = {gpu: sum(gpu in taken for taken in running.values()) for gpu in gpus}
    chosen = sorted(gpus, key=lambda gpu: load[gpu])[: training.processes]
    if jobs is None and gpus:
        return None if any(load[gpu] for gpu in chosen) else chosen
    return chosen if len(running) < (jobs or os.cpu_count() or 1) else None


def _train(waiting: list[Training], jobs: int | None, gpus: Sequence[str]) -> None:
    running: list[Training] = []
    taken: dict[str, list[str]] = {}
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
            while waiting and (places := _places(waiting[0], taken, jobs, gpus)) is not None:
                running.append(waiting.pop(0))
                running[-1].start(places)
                taken[running[-1].name] = places
                bars.update(tasks[running[-1].name], visible=True)
            time.sleep(POLL_SECONDS)
            for training in running:
                done, planned = training.progress()
                bars.update(tasks[training.name], completed=done, total=planned)
            ended = [t for t in running if t.returncode is not None]
            write_plan([t for t in ended if t.returncode])
            for training in ended:
                running.remove(training)
                del taken[training.name]
                bars.advance(runs)
                bars.update(tasks[training.name], visible=few)
