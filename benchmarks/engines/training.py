"""What is trained: its command, and what its files tell. How it is run is an engine's part."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.launch.checkpoint_hook import INTERRUPTED
from benchmarks.launch.claim import CLAIM_FILE, is_claimed
from smd_hooks.records import PlannedRun, RunState, read_state, write_suite
from smd_hooks.records.lease import is_held

SWEEP_FILE = ".sweep"
_EXIT_CODE = re.compile(r"^ *exitcode *: *(-?\d+)\b", re.MULTILINE)


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
        length: Iterations that its config plans; 0 where that is not known before it runs.
        known: Its newest launch when it was planned, "" for none; None if nobody has looked. A
            later one is another sweep's.
        failed: Why it failed, in a line; "" as long as it did not. An engine says so.
        elsewhere: Whether another launch trains it, so that this one leaves it alone; likewise.
    """

    name: str
    config: str
    work_dir: Path
    options: Sequence[str] = ()
    planned: PlannedRun = field(default_factory=lambda: PlannedRun(""))
    processes: int = 1
    length: int = 0
    known: str | None = None
    failed: str = ""
    elsewhere: bool = False
    _launches_before: str = field(default="", repr=False)
    _said_before: int = field(default=0, repr=False)

    @property
    def console_file(self) -> Path:
        """What it printed, launch after launch."""
        return self.work_dir / "console.log"

    @property
    def command(self) -> list[str]:
        """What is launched on this machine."""
        own = ["benchmarks", "run", self.config, "--work-dir", str(self.work_dir), *self.options]
        if self.processes == 1:
            return [sys.executable, "-m", *own]
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc_per_node={self.processes}"]
        own[2:2] = ["--launcher", "pytorch"]  # before --cfg-options, which takes all that follows
        return [sys.executable, "-m", *torchrun, "-m", *own]

    def resume(self) -> None:
        """Have its next launch go on from the latest checkpoint."""
        self.options = ["--resume", *(option for option in self.options if option != "--resume")]

    def begin(self) -> None:
        """Count from now on: what earlier launches left is none of this one's."""
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self._launches_before = self.newest_launch
        file = self.console_file
        self._said_before = file.stat().st_size if file.is_file() else 0

    def state(self) -> RunState | None:
        """Return what its newest launch says of itself; None if it has not said anything yet."""
        for name in sorted(self._launches(), reverse=True):
            # by name, not by time: a new launch is later than all, whatever the clock says
            if name > self._launches_before and (state := read_state(self.work_dir / name)):
                return state
        return None

    def progress(self) -> tuple[int, int | None]:
        """Iterations done and planned, from the newest launch's state."""
        state = self.state()
        return (state.iteration, state.max_iterations) if state else (0, None)

    @property
    def checkpoint(self) -> str:
        """What its next launch would go on from, told from others; "" for the start.

        Of runs that were told to end it is one file, time after time: it goes with an iteration.
        """
        try:
            path = (self.work_dir / "last_checkpoint").read_text(errors="replace").strip()
        except OSError:
            return ""
        if Path(path).name != INTERRUPTED:
            return path
        state = read_state(self.work_dir / self.newest_launch)
        return f"{path}, iteration {state.iteration if state else 0}"

    @property
    def newest_launch(self) -> str:
        """Name of its newest launch's folder; "" as long as there is none."""
        return max(self._launches(), default="")

    @property
    def is_alive(self) -> bool:
        """Whether somebody trains it: by a claim, or, of what makes none, by its records."""
        if is_taken(self.work_dir):
            return True
        state = None if (self.work_dir / CLAIM_FILE).exists() else self.state()
        return state is not None and state.status == "running" and not state.is_dead

    @property
    def sweep_file(self) -> Path:
        """The lease of the sweep that has it in hand, from its first launch to its last."""
        return self.work_dir / SWEEP_FILE

    def _launches(self) -> list[str]:
        return [folder.name for folder in self.work_dir.glob("*_*/")]

    def said(self) -> str:
        """Return what it printed since it began."""
        try:
            with open(self.console_file, "rb") as file:
                file.seek(self._said_before)
                return file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""

    def last_words(self) -> str:
        """The last line of its console, or the first error it names; and where the rest is."""
        lines = self.said().strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")]  # torchrun talks on
        told = [*errors[:1], *lines[-1:], "no output"]
        return f"{told[0]} (see {self.console_file})"

    def exit_code(self, code: int) -> int:
        """Return the exit code of the process that failed, which torchrun only prints."""
        printed = _EXIT_CODE.findall(self.said()) if self.processes > 1 and code == 1 else []
        return int(printed[-1]) if printed else code


def is_taken(work_dir: Path) -> bool:
    """Whether a launch trains in a work dir, or a sweep has it in hand."""
    return is_claimed(work_dir) or is_held(work_dir / SWEEP_FILE)


def noted(failed: Sequence[Training], say: Callable[[str], None]) -> bool:
    """Write what has failed, and return whether it is written.

    Where that cannot be, as on a full disk, a line says so: no other training ends by it.
    """
    try:
        write_plan(failed)
    except OSError as error:
        names = ", ".join(training.name for training in failed)
        say(f"that {names} failed cannot be noted: {error.strerror or error}; make room")
        return False
    return True


def write_plan(trainings: Iterable[Training]) -> None:
    """Write into the folder that holds the work dirs what is planned, and what has failed.

    Raises:
        OSError: It cannot be written to.
    """
    suites: dict[Path, dict[str, PlannedRun]] = defaultdict(dict)
    for training in trainings:
        place = training.work_dir
        entry = replace(training.planned, config=training.config, failed=training.failed)
        suites[place.parent][place.name] = entry
    for folder, planned in suites.items():
        write_suite(folder, planned)
