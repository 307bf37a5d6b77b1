"""Several ``python -m benchmarks run`` beside each other on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.launch.claim import HELD, is_claimed
from benchmarks.launch.interrupts import as_interrupts
from smd_hooks.records.lease import Lease

from .launched import Launched, wait_for_an_end
from .progress import Display, Look
from .retries import UNUSABLE, Ending, pause_before_next
from .training import Training, noted, write_plan

LOOK_EVERY = 1.0
"""Seconds between two looks at how far trainings are; that one has ended is seen at once."""
PATIENCE = 30.0
"""Seconds in which a training that was told to end may do so by itself."""


def train(
    trainings: Sequence[Training],
    jobs: int | None = None,
    gpus: Sequence[str] = (),
    retries: int = 0,
) -> list[Training]:
    """Run all, so many at a time, the first ones first; one that fails ends no other.

    What breaks off is tried again after a pause, and the others go on meanwhile. What another
    launch or sweep has is left alone; :attr:`Training.elsewhere` says so. Whatever ends this early
    (Ctrl-C, SIGTERM, an error) ends them, too. What is planned, and what failed, goes to
    ``suite.json`` beside the work dirs: ``smd-hooks table`` shows runs that left nothing else.

    Args:
        trainings: What is run.
        jobs: How many at a time; default: as many as there are GPUs for, or cores.
        gpus: What they share, as ``CUDA_VISIBLE_DEVICES`` calls them; none for what each finds.
        retries: How often one may break off and be tried again.

    Returns:
        Those that failed.
    """
    write_plan(trainings)
    queue = [Queued(training) for training in trainings]
    slots = jobs or len(gpus) or os.cpu_count() or 1
    with as_interrupts(), Display(trainings, slots) as display:
        try:
            _run(queue, jobs, gpus, retries, display)
        finally:
            try:
                _stop([one.launch for one in queue if one.launch])
            finally:
                for one in queue:
                    one.give_up()
                failed = [training for training in trainings if training.failed]
                noted(failed, display.say)
    return failed


@dataclass
class Queued:
    """A training and its launches so far.

    Attributes:
        training: The training.
        lease: By which other sweeps know that this one has it in hand.
        launch: What runs; None while it waits, and when it is over.
        not_before: When its next launch may begin, by the monotonic clock.
        endings: How its launches ended.
        over: Whether there is none to come.
    """

    training: Training
    lease: Lease = field(init=False)
    launch: Launched | None = None
    not_before: float = 0.0
    endings: list[Ending] = field(default_factory=list)
    over: bool = False
    _seen: Look = field(init=False)

    def __post_init__(self) -> None:
        self.lease = Lease(self.training.sweep_file)
        self._seen = Look(self.training.name, "waits", length=self.training.length)

    def look(self) -> Look:
        """Look at how it stands."""
        if self.launch:
            self._seen = self.launch.look()
            return self._seen
        if self.over:
            return replace(self._seen, standing="over", word="elsewhere" * self.training.elsewhere)
        return replace(self._seen, standing="waits", word="waits to go on" if self.endings else "")

    def start(self, gpus: Sequence[str]) -> None:
        """Launch it, unless another launch or sweep has it or has had it since it was planned."""
        try:
            if not self._hold():
                return
            self.launch = Launched(self.training, gpus)
        except OSError as error:
            words = f"{self.training.work_dir} cannot be written to: {error.strerror or error}"
            self._be_over(failed=words)

    def _hold(self) -> bool:
        if not self.lease.is_held:
            self.training.work_dir.mkdir(parents=True, exist_ok=True)
            if not self.lease.take():
                # of one on another machine it takes a while to know whether it lives
                if self.lease.is_anothers:
                    self._be_over(elsewhere=True)
                return False
        known = self.training.known
        moved_on = known is not None and self.training.newest_launch > known
        if moved_on or is_claimed(self.training.work_dir):
            self._be_over(elsewhere=True)
        return not self.over

    def end(self, retries: int) -> str:
        """Note that its launch has ended; say in a line how it goes on, "" if it does not."""
        assert self.launch is not None
        ending, words = self.launch.ending(), self.training.last_words()
        self.look()
        self.launch = None
        if ending.code == UNUSABLE and HELD in words:
            self._be_over(elsewhere=True)
            return ""
        self.endings.append(ending)
        pause = pause_before_next(self.endings, retries)
        if pause is None:
            self._be_over(failed=words if ending.code else "")
            return ""
        self.training.resume()
        self.training.known = self.training.newest_launch
        self.not_before = time.monotonic() + pause
        return f"{self.training.name} goes on in {pause:.0f} s: {words}"

    def give_up(self) -> None:
        """Note that there is no launch to come, whatever was to be."""
        if self.launch or (self.endings and not self.over):
            code = self.launch.returncode if self.launch else self.endings[-1].code
            self._be_over(failed=self.training.last_words() if code else "")
        self.launch = None
        self.lease.release()

    def _be_over(self, failed: str = "", elsewhere: bool = False) -> None:
        self.over, self.training.failed, self.training.elsewhere = True, failed, elsewhere
        self.lease.release()


def _run(
    queue: Sequence[Queued],
    jobs: int | None,
    gpus: Sequence[str],
    retries: int,
    display: Display,
) -> None:
    next_look = time.monotonic() + LOOK_EVERY
    failed: list[Training] = []
    unnoted = 0
    while True:
        _start(queue, jobs, gpus)
        if all(one.over for one in queue):
            display.show([one.look() for one in queue])
            return
        running = [one for one in queue if one.launch]
        wait_for_an_end([one.launch for one in running if one.launch], LOOK_EVERY)
        for one in running:
            if one.launch and one.launch.returncode is not None:
                if line := one.end(retries):
                    display.say(line)
                if one.training.failed:
                    failed.append(one.training)
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + LOOK_EVERY
            display.show([one.look() for one in queue])
            if len(failed) > unnoted:
                unnoted = 0 if noted(failed, display.say) else len(failed)
            if not unnoted:
                failed.clear()


def _start(queue: Sequence[Queued], jobs: int | None, gpus: Sequence[str]) -> None:
    """Launch what may be launched; the first that has to wait for GPUs has all others wait."""
    taken = {one.training.name: one.launch.gpus for one in queue if one.launch}
    for one in queue:
        if one.launch or one.over or one.not_before > time.monotonic():
            continue
        places = _places(one.training, taken, jobs, gpus)
        if places is None:
            return
        one.start(places)
        if one.launch:
            taken[one.training.name] = places


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


def _stop(launches: Sequence[Launched]) -> None:
    """End what runs: asked to, then, or at the next Ctrl-C, by force."""
    until = time.monotonic() + PATIENCE
    try:
        for launch in launches:
            launch.terminate()
        for launch in launches:
            launch.kill(after=max(0.0, until - time.monotonic()))
    finally:
        for launch in launches:
            launch.kill(after=0.0)
