"""Being told to end, by whatever signal, is a Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = ("SIGTERM", "SIGHUP")  # the second is not known everywhere


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
    """Ignore SIGTERM and SIGHUP: what is done here is the end already."""
    with _handled_by(signal.SIG_IGN):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, Any], None] | signal.Handlers) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
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
