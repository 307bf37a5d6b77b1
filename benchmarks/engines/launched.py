"""A training's process on this machine."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.launch.claim import KNOWN_LAUNCH
from smd_hooks.records.state import NOT_FINITE

from .progress import Look
from .retries import Ending
from .training import Training

_NO_WAIT = 0.02  # between two looks, where a system cannot wait for several processes at once


class Launched:
    """A process that trains, and what it was started with.

    Args:
        training: What it trains.
        gpus: Those that it may use, as ``CUDA_VISIBLE_DEVICES`` calls them; none for all.
    """

    def __init__(self, training: Training, gpus: Sequence[str] = ()) -> None:
        training.begin()
        known = training.newest_launch
        self.training, self.gpus = training, list(gpus)
        self._checkpoint, self._began = training.checkpoint, time.monotonic()
        self._first_seen: int | None = None if self._checkpoint else 0
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
        with open(training.console_file, "ab") as console:
            self._process = subprocess.Popen(
                training.command,
                stdout=console,
                stderr=subprocess.STDOUT,
                # one thread each: two spinning threads per process cost more than they bring
                env={**os.environ, "OMP_NUM_THREADS": "1", KNOWN_LAUNCH: known, **visible},
                # a Ctrl-C reaches it once, by us; and with it end all that it has started
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its number, and that of the group of all that it has started."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code; None as long as it has none."""
        return self._process.poll()

    def terminate(self) -> None:
        """Tell it to end, if it runs."""
        if self.returncode is None:
            self._process.terminate()

    def kill(self, after: float) -> None:
        """Wait until it has ended, so many seconds; then end it, and what it has started."""
        try:
            self._process.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def look(self) -> Look:
        """Look at how far it is."""
        done, planned = self.training.progress()
        if self._first_seen is None and done:
            self._first_seen = done
        length, began = planned or self.training.length, self._first_seen or 0
        seconds = time.monotonic() - self._began
        return Look(self.training.name, "runs", done, length, began, seconds)

    def ending(self) -> Ending:
        """Say how it ended."""
        code, state = self.training.exit_code(self.returncode or 0), self.training.state()
        diverged = bool(state and state.status == "failed" and state.error.startswith(NOT_FINITE))
        return Ending(code, self._checkpoint, self.training.checkpoint, diverged)


def wait_for_an_end(launches: Sequence[Launched], seconds: float) -> None:
    """Return as soon as one of them has ended, and after so many seconds anyway."""
    if not launches:
        time.sleep(seconds)
    elif not hasattr(os, "pidfd_open"):
        time.sleep(min(seconds, _NO_WAIT))
    else:
        with _all_of(launches) as ends:
            ends.poll(1000 * seconds)


@contextmanager
def _all_of(launches: Sequence[Launched]) -> Iterator[select.poll]:
    """Open what becomes readable when a process has ended."""
    ends, opened = select.poll(), []
    try:
        for launch in launches:
            opened.append(os.pidfd_open(launch.pid))
            ends.register(opened[-1], select.POLLIN)
        yield ends
    finally:
        for descriptor in opened:
            os.close(descriptor)
