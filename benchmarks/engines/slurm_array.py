"""Trainings submitted as an array of Slurm jobs, and found again in the queue.

What is submitted lies in ``<sweep>/slurm/<time>/``: the batch script, a task file with a line for
each element, and the command that submitted them. Nothing else is kept: which jobs are a sweep's,
and how they stand, the queue itself says. So a sweep that is started again finds its jobs,
whatever became of the one that submitted them.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from benchmarks.errors import UsageError
from smd_hooks.records.lease import held

from .slurm_queue import Job, Place, ask, comment
from .training import Training

BATCH_SCRIPT = Path(__file__).with_name("batch.sh")
NOTICE_SECONDS = 120
"""Before its time limit a run is told to save a checkpoint, and goes back to the queue."""
_OURS = {
    *("array", "chdir", "comment", "error", "gpu-bind", "job-name", "no-requeue", "ntasks"),
    *("open-mode", "output", "parsable", "requeue", "signal", "test-only", "wait", "wrap"),
}
_OTHER_CLUSTERS = {"clusters", "cluster-constraint"}
_GPUS = {"gres", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"}
_LACKS_GPUS = re.compile(r"gres|tres|gpu|configuration is not available", re.IGNORECASE)
_TOO_MANY = re.compile(r"job submit limit|job array specification", re.IGNORECASE)


class Refused(UsageError):
    """What sbatch does not take."""

    @property
    def are_too_many(self) -> bool:
        """Whether fewer at a time may be taken."""
        return _TOO_MANY.search(str(self)) is not None


def sbatch_options(options: Sequence[str]) -> list[str]:
    """Turn ``KEY=VALUE`` into sbatch's ``--KEY=VALUE``, and ``KEY`` into ``--KEY``.

    Raises:
        UsageError: An option is set by the engine itself, abbreviated or in full, has dashes, or
            sends jobs to clusters that nobody asks for them.
    """
    for option in options:
        key = option.partition("=")[0]
        if not key or key.startswith("-"):
            raise UsageError(f"--slurm {option}: write KEY=VALUE, such as time=24:00:00")
        if any(own.startswith(key) for own in _OURS):
            raise UsageError(f"--slurm {option}: the sweep sets sbatch's --{key} itself")
        if any(other.startswith(key) for other in _OTHER_CLUSTERS):
            raise UsageError(
                f"--slurm {option}: a sweep's jobs are on its own cluster; start it on a machine "
                "that submits to the other"
            )
    return [f"--{option}" for option in options]


def task(training: Training) -> str:
    """Return an element's line in the task file: work dir and command, quoted for the shell.

    Raises:
        UsageError: Something in it has a line break.
    """
    launcher = "slurm" if training.processes > 1 else "none"
    given = [option for option in training.options if option != "--resume"]
    command = [
        *(sys.executable, "-m", "benchmarks", "run", training.config),
        # whatever goes back to the queue goes on where it was
        *("--work-dir", str(training.work_dir), "--launcher", launcher, "--resume", *given),
    ]
    line = shlex.join([str(training.work_dir.resolve()), *command])
    if len(line.splitlines()) > 1:
        raise UsageError(f"--engine slurm: {line!r} has a line break; take it out")
    return line


def in_queue(trainings: Sequence[Training], jobs: Sequence[Job]) -> dict[str, Place]:
    """Find the trainings that are in the queue already, each by its name.

    Args:
        trainings: What is to be run.
        jobs: What the queue holds.
    """
    names = {training.work_dir.resolve(): training.name for training in trainings}
    alive = [(job.place, _work_dir(job)) for job in jobs if not job.has_ended]
    return {names[work_dir]: place for place, work_dir in alive if work_dir in names}


def _work_dir(job: Job) -> Path | None:
    """Which run an element is, as its array's task file says."""
    try:
        lines = (job.folder / "tasks").read_text(encoding="utf-8").split("\n")
        return Path(shlex.split(lines[job.place.element])[0])
    except (OSError, ValueError, IndexError):  # removed meanwhile, or some other program's
        return None


def kinds(trainings: Iterable[Training]) -> list[list[Training]]:
    """Put those together that have equally many processes: an array's elements are alike."""
    found: dict[int, list[Training]] = {}
    for training in trainings:
        found.setdefault(training.processes, []).append(training)
    return list(found.values())


def submit(
    trainings: Sequence[Training], folder: Path, options: Sequence[str], slots: int | None
) -> dict[str, Place]:
    """Submit trainings of one kind as one array.

    Args:
        trainings: Each becomes an element; none is in the queue yet.
        folder: Where a new folder is made for them.
        options: Of sbatch, as the user has chosen them.
        slots: How many run at a time.

    Returns:
        Where each is in the queue, by its name.

    Raises:
        UsageError: A folder cannot be written to.
        Refused: sbatch refuses, in its own words.
    """
    lines = [task(training) for training in trainings]
    resources = [*_resources(trainings[0], options), *options]
    try:
        place = _new_folder(folder)
        (place / "tasks").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        script = shutil.copy(BATCH_SCRIPT, place)
        command = [
            *("sbatch", "--parsable", f"--job-name={folder.parent.name}"),
            f"--comment={comment(place)}",
            f"--array=0-{len(lines) - 1}" + (f"%{slots}" if slots else ""),
            *("--requeue", f"--signal=B:USR1@{NOTICE_SECONDS}"),
            *("--open-mode=append", f"--output={str(place).replace('%', '%%')}/%a.log"),
            *resources,
            *(str(script), str(place / "tasks")),
        ]
        (place / "command").write_text(shlex.join(command) + "\n", encoding="utf-8")
        for training in trainings:
            training.work_dir.mkdir(parents=True, exist_ok=True)
            training.console_file.write_bytes(b"")  # an error of an earlier launch is not theirs
    except OSError as error:
        raise UsageError(f"--engine slurm: {error.filename}: {error.strerror}") from None
    try:
        array = ask(*command).partition(";")[0].strip()  # after it, which of several clusters
    except UsageError as refusal:
        words = str(refusal)
        if _LACKS_GPUS.search(words):
            words += f"; asked for {shlex.join(resources)}, no GPUs are --slurm gres=none"
        raise Refused(words) from None
    if not array.isdecimal():
        raise UsageError(f"--engine slurm: sbatch submitted nothing; it said {array!r}")
    return {training.name: Place(array, n) for n, training in enumerate(trainings)}


def _resources(training: Training, options: Sequence[str]) -> list[str]:
    """Ask for as many tasks as it has processes; for a GPU for each, if the user says nothing."""
    chosen = {option.removeprefix("--").partition("=")[0] for option in options}
    return [f"--ntasks={training.processes}"] + ["--gpus-per-task=1"] * (not chosen & _GPUS)


def _new_folder(folder: Path) -> Path:
    stamp = time.strftime("%Y%m%d_%H%M%S")
    names = (f"{stamp}-{number}" if number else stamp for number in count())
    place = next(folder / name for name in names if not (folder / name).exists())
    place.mkdir()
    return place.resolve()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Have no other sweep look into the queue and submit meanwhile.

    Raises:
        UsageError: The folder cannot be written to, or another sweep is at it for minutes.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(folder / ".submitting"))
        except OSError as error:
            raise UsageError(f"--engine slurm: {folder}: {error.strerror or error}") from None
        yield
