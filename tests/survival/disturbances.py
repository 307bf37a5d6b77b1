"""What a machine does to a run but killing it, and what was lost by it.

Each disturbance trains small runs, disturbs them, lets them go on once it is over, and holds
what they leave to what the same training leaves in peace, bit by bit.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.survival.forked import ended, start
from tests.survival.kill_runs import Case, Trained, differences
from tests.survival.peace import Peace

_ERROR, _GOES_ON = "error: ", "going on from"
DISK = "24m"
"""Size of the disk that is filled: what a small training leaves and some more."""


@dataclass
class Disturbed:
    """What came of a disturbance.

    Attributes:
        what: Which.
        tries: How often.
        losses: What differs from the trainings in peace, in a line each.
        said: What the user was told, without paths.
    """

    what: str
    tries: int = 0
    losses: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def full_disk(peace: Peace, tries: int) -> Disturbed:
    """Fill the disk at a random moment; make room again when the run has ended.

    A run that needs nothing more of the disk by then ends well.
    """
    found = Disturbed("disk full from a random moment on, then room again")
    for number in range(tries):
        case = peace.case(number)
        with _disk(peace.folder / f"disk {number}") as parent:
            process = start(case.command(parent), parent.with_suffix(".log"))
            process.join(peace.moment(case))
            _fill(parent / "ballast", process.is_alive)
            code = ended(process)
            (parent / "ballast").unlink(missing_ok=True)
            _go_on(found, peace, case, parent, code)
    return found


def read_only_disk(peace: Peace, tries: int) -> Disturbed:
    """Kill a run at a random moment, and resume it on a disk that is read-only; then on one not."""
    found = Disturbed("work dir read-only when it starts or goes on, then not")
    for number in range(tries):
        case = peace.case(number)
        with _disk(peace.folder / f"read-only {number}") as parent:
            if number:
                _begin_and_kill(peace, case, parent, parent.with_suffix(".log"))
            while not _mounted(parent, "remount,ro"):
                time.sleep(0.05)  # a worker process that outlived it has a file open
            again = [*case.command(parent), "--resume"]
            code = ended(start(again, parent.with_suffix(".log")))
            if code != 2:
                found.losses.append(f"{case.name}: exit code {code} where nothing can be written")
            _mounted(parent, "remount,rw")
            _go_on(found, peace, case, parent, code)
    return found


def clock_back(peace: Peace, tries: int) -> Disturbed:
    """Kill a run at a random moment; go on with the clock a day earlier than it was."""
    found = Disturbed("killed, and the clock a day earlier when it goes on")
    for number in range(tries):
        case, parent = peace.case(number), peace.folder / f"clock {number}"
        _begin_and_kill(peace, case, parent, parent / "console.log")
        again = [*case.command(parent), "--resume"]
        code = ended(start(again, parent / "console.log", _set_clock, -86400.0))
        judge(found, peace, case, parent, code)
    return found


def clock_back_meanwhile(peace: Peace, tries: int) -> Disturbed:
    """Set the clock back by an hour at a random moment of a run."""
    found = Disturbed("the clock an hour back while it trains")
    for number in range(tries):
        case, parent = peace.case(number), peace.folder / f"meanwhile {number}"
        moment = time.time() + peace.moment(case)
        code = ended(
            start(case.command(parent), parent / "console.log", _set_clock, -3600.0, moment)
        )
        judge(found, peace, case, parent, code)
    return found


def two_launches(peace: Peace, tries: int) -> Disturbed:
    """Kill a run at a random moment, and resume it by two launches at once."""
    found = Disturbed("two launches into one folder at once")
    for number in range(tries):
        case, parent = peace.case(number), peace.folder / f"two {number}"
        _begin_and_kill(peace, case, parent, parent / "console.log", share=0.8)
        again = [*case.command(parent), "--resume"]
        both = [start(again, parent / f"console{place}.log") for place in (0, 1)]
        codes = [ended(launch) for launch in both]
        # the second may come when the first has finished: there is nothing left to do for it
        if sorted(codes) not in ([0, 0], [0, 2]):
            found.losses.append(f"{case.name}: exit codes {codes}")
        for place, code in enumerate(codes):
            if code == 2:
                hear(found, parent / f"console{place}.log", parent)
        judge(found, peace, case, parent, 0)
    return found


def damaged_checkpoint(peace: Peace, tries: int) -> Disturbed:
    """Kill a run, cut off the checkpoint that it would go on from, or what points to it."""
    found = Disturbed("the newest checkpoint, or the file that names it, cut off")
    for number in range(tries):
        case, parent = peace.case(number), peace.folder / f"damaged {number}"
        process = start(case.command(parent), parent / "console.log")
        while process.is_alive() and len(list((parent / case.name).glob("*[0-9].pth"))) < 2:
            time.sleep(0.01)
        process.kill()
        process.join()
        pointer = parent / case.name / "last_checkpoint"
        broken = pointer if number % 2 else Path(pointer.read_text())
        content = broken.read_bytes()
        broken.write_bytes(content[: peace.moments.randrange(len(content))])
        code = ended(start([*case.command(parent), "--resume"], parent / "console.log"))
        hear(found, parent / "console.log", parent, "checkpoint ")
        judge(found, peace, case, parent, code)
    return found


def _begin_and_kill(
    peace: Peace, case: Case, parent: Path, console: Path, share: float = 1.0
) -> None:
    """Begin a training and kill it at a random moment of the first share of its time."""
    process = start(case.command(parent), console)
    process.join(peace.moment(case) * share)
    process.kill()
    process.join()


def _go_on(found: Disturbed, peace: Peace, case: Case, parent: Path, code: int) -> None:
    """What was disturbed has ended, told why in a line, and goes on."""
    console = parent.with_suffix(".log")
    if code not in (0, 1, 2):
        found.losses.append(f"{case.name}: exit code {code}")
    if code:
        lines = [line for line in console.read_text().splitlines() if line.startswith("error: ")]
        if len(lines) != 1:
            found.losses.append(f"{case.name}: {len(lines)} lines of error")
        hear(found, console, parent)
        code = ended(start([*case.command(parent), "--resume"], console))
    judge(found, peace, case, parent, code)


def train(case: Case, parent: Path, *options: str) -> int:
    """Train in peace; return the exit code."""
    return ended(start([*case.command(parent), *options], parent / "console.log"))


def judge(
    found: Disturbed, peace: Peace, case: Case, parent: Path, code: int, name: str = ""
) -> None:
    """Hold what a training has left against what it leaves in peace.

    Args:
        found: Takes the try, and what was lost.
        peace: What trainings leave in peace.
        case: The training.
        parent: Where its folder is.
        code: The exit code that it ended with at last.
        name: The folder's, if it is not the training's.
    """
    found.tries += 1
    if code:
        found.losses.append(f"{case.name}: exit code {code}, {parent}")
        return
    whole, _ = peace.of(case)
    lost = differences(whole, Trained.read(parent / (name or case.name)))
    found.losses += [f"{case.name}, {parent.name}: {line}" for line in lost]


def hear(found: Disturbed, console: Path, parent: Path, sign: str = _ERROR) -> None:
    """Keep what a user was told, in general words."""
    for line in console.read_text().splitlines():
        if sign in line and (sign == _ERROR or _GOES_ON in line):
            told = line[line.index(sign) :].replace(str(parent), "DIR")
            told = re.sub(r"DIR/\w+", "DIR/RUN", told)
            found.said.append(re.sub(r"\d+", "N", told))


def _set_clock(by: float, since: float = 0.0) -> None:
    """Let this process's time of day be another from a moment on."""
    real = time.time
    time.time = lambda: real() + (by if real() >= since else 0.0)


@contextmanager
def _disk(place: Path) -> Iterator[Path]:
    """Mount a small disk for a while.

    Raises:
        PermissionError: That needs root.
    """
    place.mkdir(exist_ok=True)
    if not _mounted(place, f"size={DISK}", new=True):
        raise PermissionError("no disk can be mounted here: needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _mounted(place: Path, options: str, new: bool = False) -> bool:
    kind = ["-t", "tmpfs", "tmpfs"] if new else []
    command = ["mount", "-o", options, *kind, str(place)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _fill(ballast: Path, until: Callable[[], bool]) -> None:
    """Fill a disk, and what becomes free of it, as long as there is somebody who needs it."""
    with open(ballast, "ab", buffering=0) as file:
        while until():
            with suppress(OSError):
                while file.write(bytes(65536)):
                    pass
            with suppress(OSError):
                while file.write(b"\0"):
                    pass
            time.sleep(0.02)


def can_mount(folder: Path) -> bool:
    """Whether a disk can be mounted here."""
    try:
        with _disk(folder / "try"):
            return True
    except (OSError, subprocess.SubprocessError):
        return False


Disturbance = Callable[[Peace, int], Disturbed]
ALL: tuple[Disturbance, ...] = (
    full_disk,
    read_only_disk,
    clock_back,
    clock_back_meanwhile,
    two_launches,
    damaged_checkpoint,
)
NEEDS_DISK = (full_disk, read_only_disk)
