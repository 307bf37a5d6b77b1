"""What Slurm says of the jobs of a sweep."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.errors import UsageError

_FORMAT = "%F|%K|%T|%r|%k"  # the comment last: it may hold anything
_ENDED = {
    "COMPLETED": "",
    "FAILED": "",
    "CANCELLED": "cancelled",
    "TIMEOUT": "out of its time limit",
    "DEADLINE": "out of its deadline",
    "OUT_OF_MEMORY": "out of memory",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not boot",
    "PREEMPTED": "preempted, and not requeued by this cluster",
}
_SAYS_LITTLE = {"None", "Priority", "Resources", "JobArrayTaskLimit"}
_LONGEST_ARRAY = re.compile(r"\b(?:MaxArraySize|max_array_tasks) *= *(\d+)")
_USUALLY_LONGEST = 1001
_EXIT_CODE = re.compile(r"\bExitCode=(\d+):")


class Place(NamedTuple):
    """Which element of which array a training is."""

    array: str
    element: int

    def __str__(self) -> str:
        return f"{self.array}_{self.element}"


@dataclass(frozen=True)
class Job:
    """An element of an array that some sweep has submitted.

    Attributes:
        place: What it is known by.
        state: As Slurm calls it, such as ``PENDING``.
        reason: Why it waits, as Slurm calls it.
        folder: Where the sweep wrote the array's tasks.
    """

    place: Place
    state: str
    reason: str = ""
    folder: Path = Path()

    @property
    def has_ended(self) -> bool:
        """Whether it will not run again."""
        return self.state in _ENDED

    @property
    def end(self) -> str:
        """How Slurm ended it, in words; "" where it ended by itself."""
        return _ENDED.get(self.state, "")

    def word(self, has_run: bool) -> str:
        """Say in few words what it does; "" where that is to run.

        Args:
            has_run: Whether it ran before.
        """
        if self.state == "RUNNING":
            return ""
        if self.state != "PENDING":
            return self.state.lower()
        reason = f" ({self.reason})" if self.reason and self.reason not in _SAYS_LITTLE else ""
        return ("requeued" if has_run else "pending") + reason


def comment(folder: Path) -> str:
    """Return what jobs are known by as a sweep's: one line of ASCII, whatever the path."""
    return json.dumps(str(folder))


def jobs_in_queue() -> list[Job]:
    """Return all elements of this user's sweeps; for some minutes also those that have ended.

    Raises:
        UsageError: squeue is missing or does not answer; with its own words.
    """
    told = ask(
        *("squeue", "--noheader", "--array", "--states=all"),
        *(f"--user={os.getuid()}", f"--format={_FORMAT}"),
    )
    return [job for line in told.splitlines() if (job := read_job(line)) is not None]


def read_job(line: str) -> Job | None:
    """Read a line of squeue; None if it is of no sweep's job."""
    array, element, state, reason, said = [*line.split("|", 4), "", "", "", ""][:5]
    try:
        folder = json.loads(said)
    except ValueError:
        return None
    if not isinstance(folder, str) or not element.isdecimal():
        return None
    return Job(Place(array, int(element)), state, reason, Path(folder))


def accounted(place: Place) -> Job | None:
    """Return how an element stands by Slurm's accounting; None where that is off."""
    try:
        told = ask(
            *("sacct", "--noheader", "--allocations", "--parsable2"),
            *("--format=State", f"--jobs={place}"),
        ).split()
    except UsageError:
        return None
    return Job(place, told[0]) if told else None  # "CANCELLED by 1000"


def exit_code(place: Place) -> int:
    """Return with what an element's script ended; 1 where Slurm ended it, or knows no more."""
    try:
        found = _EXIT_CODE.search(ask("scontrol", "--oneliner", "show", "job", str(place)))
    except UsageError:
        return 1
    return int(found[1]) or 1 if found else 1


def longest_array() -> int:
    """Return how many elements this cluster takes in one array."""
    try:
        found = _LONGEST_ARRAY.findall(ask("scontrol", "show", "config"))
    except UsageError:
        found = []
    return max(1, min(map(int, found), default=_USUALLY_LONGEST))


def ask(*command: str) -> str:
    """Run one of Slurm's commands and return what it prints.

    Raises:
        UsageError: It is missing, or it refuses; with its own words, in one line.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError:
        raise UsageError(
            f"--engine slurm: there is no {command[0]} here; start the sweep on a machine of the "
            "cluster that jobs are submitted from, or use --engine local"
        ) from None
    if done.returncode != 0:
        raise UsageError(f"--engine slurm: {_words(command[0], done.stderr.splitlines())}")
    return done.stdout


def _words(program: str, lines: Sequence[str]) -> str:
    """Put what a program complains of into one line."""
    said = [line.removeprefix(f"{program}: ").removeprefix("error: ").strip() for line in lines]
    return f"{program}: {'; '.join(line for line in said if line) or 'failed'}"
