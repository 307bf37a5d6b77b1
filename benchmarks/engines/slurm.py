"""Several trainings as array jobs of a Slurm cluster.

Slurm decides what runs when, and where, and requeues what it preempts or loses with a node. Here
jobs are submitted, waited for, and tried again where a run broke off.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.errors import UsageError
from benchmarks.launch.claim import CLAIM_FILE, HELD
from benchmarks.launch.interrupts import as_interrupts
from smd_hooks.records.lease import Lease
from smd_hooks.records.state import NOT_FINITE

from .progress import Display, Look
from .retries import INTERRUPTED, UNUSABLE, Ending, pause_before_next
from .slurm_array import Refused, alone, in_queue, kinds, sbatch_options, submit
from .slurm_queue import Job, Place, accounted, exit_code, jobs_in_queue, longest_array
from .training import Training, write_plan

LOOK_EVERY = 15.0
"""Seconds between two looks at the queue: all users share the machine that answers."""
REFUSED_PAUSE = 300.0
"""Seconds before what sbatch has refused is submitted again."""


def train(
    trainings: Sequence[Training],
    options: Sequence[str] = (),
    slots: int | None = None,
    retries: int = 0,
) -> list[Training]:
    """Submit all that are not in the queue yet, and wait until all have ended.

    Each goes on from its latest checkpoint, if it has one; so does what breaks off, after a pause.
    One that another launch holds, outside the queue, is left alone, and says so in
    :attr:`Training.elsewhere`. Whatever ends this early (Ctrl-C, SIGTERM, an error) leaves the
    jobs in the queue. What is planned, and what failed, goes to ``suite.json`` beside the work
    dirs.

    Args:
        trainings: What is run, each process on a GPU of its own.
        options: Of sbatch, ``KEY=VALUE`` for ``--KEY=VALUE``; what they say of GPUs stands.
        slots: How many of those with equally many processes run at a time; None for as many as
            the cluster lets.
        retries: How often one may break off and be tried again.

    Returns:
        Those that failed, or that somebody has cancelled.

    Raises:
        UsageError: There is no Slurm here, it refuses, or an option is not the user's to set.
    """
    chosen = sbatch_options(options)
    jobs_in_queue()  # refuses before anything is written
    write_plan(trainings)
    sweep = _Sweep([Element(t) for t in trainings], chosen, slots)
    try:
        with as_interrupts(), Display(trainings, slots or len(trainings)) as display:
            sweep.submit()
            while not sweep.is_over:
                display.show([element.look() for element in sweep.elements])
                time.sleep(LOOK_EVERY)
                sweep.look(display, retries)
            display.show([element.look() for element in sweep.elements])
    except BaseException:
        if arrays := sweep.arrays:
            told = "its jobs stay in the queue: the same command waits for them again"
            print(f"{told}, scancel {' '.join(arrays)} cancels them", file=sys.stderr)
        raise
    return [training for training in trainings if training.failed]


@dataclass
class Element:
    """A training's place in the queue, and how it stands there.

    Attributes:
        training: The training.
        place: Which element of which array it is; None while it is not submitted.
        not_before: When it may be submitted again, by the monotonic clock.
        endings: How it ended so far.
        over: Whether it is not submitted again.
    """

    training: Training
    place: Place | None = None
    not_before: float = 0.0
    endings: list[Ending] = field(default_factory=list)
    over: bool = False
    _job: Job | None = None
    _checkpoint: str = ""
    _runs_since: float | None = None
    _began: int = 0
    _leases: list[Lease] = field(init=False)

    def __post_init__(self) -> None:
        claim = self.training.work_dir / CLAIM_FILE
        self._leases = [Lease(claim), Lease(self.training.sweep_file)]

    @property
    def is_due(self) -> bool:
        """Whether it is to be submitted now."""
        return not self.place and not self.over and self.not_before <= time.monotonic()

    def may_be_submitted(self) -> bool:
        """Return whether nobody holds it; leave it where others do, or have had it.

        A claim outlives a job that was killed. Where that ran on another machine, only a sign of
        life tells it from a claim that somebody else holds: until then, or until the claim is
        over, it is neither submitted nor left.
        """
        known, held = self.training.known, self._held()
        moved_on = known is not None and self.training.newest_launch > known
        if moved_on or any(lease.is_anothers for lease in held):
            self.leave()
        return not held and not self.over

    def leave(self) -> None:
        """Leave it to whoever has it."""
        self.over = self.training.elsewhere = True

    def enter(self, place: Place) -> None:
        """Take note that it is in the queue."""
        self.place, self._job, self._runs_since = place, None, None
        self._checkpoint = self.training.checkpoint

    def look(self) -> Look:
        """Say how it stands."""
        training, job = self.training, self._job
        done, planned = training.progress()
        iterations = done, planned or training.length
        if self.over:
            return Look(training.name, "over", *iterations, word="elsewhere" * training.elsewhere)
        if self._runs_since is None:
            waits = "tried again soon" if self.endings else "not submitted yet"
            word = job.word(done > 0) if job else "submitted" if self.place else waits
            return Look(training.name, "waits", *iterations, word=word)
        seconds = time.monotonic() - self._runs_since
        return Look(training.name, "runs", *iterations, self._began, seconds)

    def see(self, job: Job | None, retries: int) -> str:
        """Take note of how its job stands; return a line if it broke off or failed, else "".

        Args:
            job: What the queue says; None if it knows the job no more.
            retries: How often it may break off and be tried again.
        """
        assert self.place is not None
        self._job = job = job or accounted(self.place)
        if job is None or job.has_ended:
            return self._end(job, retries)
        if job.state != "RUNNING":
            self._runs_since = None
        elif self._runs_since is None:
            self._runs_since, self._began = time.monotonic(), self.training.progress()[0]
        return ""

    def _end(self, job: Job | None, retries: int) -> str:
        state, words = self.training.state(), self.training.last_words()
        if job is None:  # it ended long ago, and nothing counts jobs here
            code = 0 if state is not None and state.status == "finished" else 1
        else:
            code = self._exit_code(job)
            words = ", ".join(part for part in (job.end, words) if part)
        self.place = self._job = self._runs_since = None
        if code == UNUSABLE and HELD in words:
            self.leave()
            return ""
        diverged = (
            state is not None and state.status == "failed" and state.error.startswith(NOT_FINITE)
        )
        self.endings.append(Ending(code, self._checkpoint, self.training.checkpoint, diverged))
        pause = pause_before_next(self.endings, retries)
        if pause is None:
            self.over = True
            self.training.failed = words if code else ""
            write_plan([self.training] if code else [])
            return f"{self.training.name} failed: {words}" if code else ""
        self.not_before = time.monotonic() + pause
        self.training.known = self.training.newest_launch
        self._held()  # from now on a touched claim is another's
        return f"{self.training.name} is submitted again in {pause:.0f} s: {words}"

    def _held(self) -> list[Lease]:
        return [lease for lease in self._leases if not lease.is_free()]

    def _exit_code(self, job: Job) -> int:
        if job.state == "COMPLETED":
            return 0
        # whoever cancels a job does not want it tried again
        return INTERRUPTED if job.state == "CANCELLED" else exit_code(job.place)


@dataclass
class _Sweep:
    elements: list[Element]
    options: list[str]
    slots: int | None
    _told: set[str] = field(default_factory=set)

    @property
    def is_over(self) -> bool:
        return all(element.over for element in self.elements)

    @property
    def arrays(self) -> list[str]:
        places = [element.place for element in self.elements]
        return list(dict.fromkeys(place.array for place in places if place))

    def submit(self) -> None:
        """Find in the queue what is there, leave alone what others have, submit the rest."""
        left = {element.training.name: element for element in self.elements if element.is_due}
        if not any(map(self._room, kinds(element.training for element in left.values()))):
            return
        trainings = [element.training for element in left.values()]
        folder = trainings[0].work_dir.parent / "slurm"
        with alone(folder):
            for name, place in in_queue(trainings, jobs_in_queue()).items():
                left.pop(name).enter(place)
            left = {name: element for name, element in left.items() if element.may_be_submitted()}
            for alike in kinds(element.training for element in left.values()):
                self._submit(alike, left, folder)

    def _submit(
        self, alike: Sequence[Training], elements: Mapping[str, Element], folder: Path
    ) -> None:
        """Submit as many of a kind as there is room for, in arrays as long as the cluster takes."""
        most = longest_array()
        while part := alike[: min(most, self._room(alike))]:
            try:
                places = submit(part, folder, self.options, self.slots)
            except Refused as refusal:
                if refusal.are_too_many and len(part) > 1:
                    most = len(part) // 2
                    continue
                for training in alike:
                    elements[training.name].not_before = time.monotonic() + REFUSED_PAUSE
                if refusal.are_too_many and self.arrays:
                    return  # there is room when some of those have ended
                raise
            for name, place in places.items():
                elements[name].enter(place)
            alike = alike[len(part) :]

    def _room(self, alike: Sequence[Training]) -> int:
        """How many of a kind may be submitted: an array limits how many of its own run."""
        queued = [element.training.processes for element in self.elements if element.place]
        beside = queued.count(alike[0].processes) if alike else 0
        return max(0, self.slots - beside) if self.slots and beside else len(alike)

    def look(self, display: Display, retries: int) -> None:
        """Look at the queue; submit again what may be tried again."""
        try:
            jobs = {job.place: job for job in jobs_in_queue()}
            for element in self.elements:
                if element.place and (line := element.see(jobs.get(element.place), retries)):
                    display.say(line)
            self.submit()
        except UsageError as error:  # a controller that restarts, or is too busy, comes back
            if str(error) not in self._told:
                self._told.add(str(error))
                display.say(f"{error}; asked again from time to time")
