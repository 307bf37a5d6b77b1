"""Being told to end, by a signal: at once, or after a checkpoint."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_SIGNALS = ("SIGTERM", "SIGHUP")  # the second is not known everywhere
_NOTICES = ("SIGTERM", "SIGUSR1")  # what Slurm sends before it ends or preempts a job

REQUEUE = 75
"""Exit code of a run that was told to end and can go on: ``EX_TEMPFAIL`` of sysexits.h."""
INSISTS_AFTER = 10.0
"""Seconds after which the same signal again is meant to end at once; sooner it is an echo:
Slurm signals torchrun and its processes, and torchrun passes the signal on."""


class ToldToEnd(Exception):
    """A run ends between two iterations because a signal told it to.

    Attributes:
        resumable: Whether a checkpoint of the last iteration was saved.
    """

    def __init__(self, signal_name: str, resumable: bool) -> None:
        self.resumable = resumable
        goes_on = "goes on with --resume" if resumable else "no CheckpointHook, so nothing is saved"
        super().__init__(f"told to end ({signal_name}); {goes_on}")


@dataclass
class Notice:
    """What signals have told so far.

    Attributes:
        told_by: The first one's name, "" as long as none came.
    """

    told_by: str = ""
    _heard: dict[int, float] = field(default_factory=dict)

    def hear(self, number: int, frame: Any = None) -> None:
        """Handle a signal.

        Raises:
            KeyboardInterrupt: It came before, :data:`INSISTS_AFTER` ago or earlier.
        """
        now = time.monotonic()
        if now - self._heard.setdefault(number, now) >= INSISTS_AFTER:
            raise KeyboardInterrupt
        self.told_by = self.told_by or signal.Signals(number).name


@contextmanager
def noticed() -> Iterator[Notice]:
    """Have SIGTERM and SIGUSR1 noted for who looks, and SIGHUP raise KeyboardInterrupt.

    Does nothing but in the main thread: no other can handle signals.
    """
    notice = Notice()
    with _handled_by(_interrupt, ("SIGHUP",)), _handled_by(notice.hear, _NOTICES):
        yield notice


@contextmanager
def as_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt at SIGTERM and SIGHUP, so that what cleans up does so.

    A signal that is ignored, as under ``nohup``, stays so. Does nothing but in the main thread:
    no other can handle signals.
    """
    with _handled_by(_interrupt):
        yield


@contextmanager
def put_off() -> Iterator[None]:
    """Ignore SIGTERM, SIGHUP and SIGUSR1: what is done here is the end already."""
    with _handled_by(signal.SIG_IGN, (*_SIGNALS, "SIGUSR1")):
        yield


@contextmanager
def _handled_by(
    handler: Callable[[int, Any], None] | signal.Handlers, names: Sequence[str] = _SIGNALS
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
