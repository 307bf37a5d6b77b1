"""Which process wrote something: told apart from every other, and known to be dead when it is."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .foreign_files import count_in
from .plain_text import one_line

_LARGEST = 2**31 - 1  # number of a process; and what every system knows as a date
_STATE, _STARTED = 0, 19
"""Fields of /proc/<pid>/stat, counted from behind the command's name."""


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, as others can look for it.

    Attributes:
        host: Its machine, as people call it.
        space: Boot and process namespace in which its number means it: machines of the same
            name and containers of one machine differ here. Empty where a system has neither.
        pid: Its number there.
        started: When it began, in clock ticks since the boot: numbers are used again. None
            where a system does not tell.
        since: Unix time of what it wrote, by its own clock; for people, nothing is computed of it.
    """

    host: str
    space: str
    pid: int
    started: int | None
    since: int

    @property
    def is_here(self) -> bool:
        """Whether its number means something to this process."""
        return (self.host, self.space) == _here()

    @property
    def is_dead(self) -> bool:
        """Whether it is known to have ended; one that runs elsewhere never is."""
        if not self.is_here:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # another user's
            pass
        state, started = _looked_up(self.pid)
        # a zombie has ended, though its number is still taken
        return state in ("Z", "X") or (
            None not in (started, self.started) and started != self.started
        )

    def __str__(self) -> str:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.pid} on {one_line(self.host, 100)} since {began}"


def this_process() -> ProcessIdentity:
    """Return who we are."""
    pid = os.getpid()
    return ProcessIdentity(*_here(), pid, _looked_up(pid)[1], int(time.time()))


def identity_in(content: dict[str, Any]) -> ProcessIdentity | None:
    """Return the process that a JSON object describes; None if it describes none."""
    host, space = content.get("host"), content.get("space")
    pid, started, since = (count_in(content.get(key)) for key in ("pid", "started", "since"))
    if not (isinstance(host, str) and isinstance(space, str)):
        return None
    if not pid or since is None or max(pid, since) > _LARGEST:
        return None
    return ProcessIdentity(host, space, pid, started, since)


def _here() -> tuple[str, str]:
    return socket.gethostname(), _space()


@cache
def _space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _looked_up(pid: int) -> tuple[str, int | None]:
    """Return the state and the start of a process; "" and None where a system does not tell."""
    try:
        said = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return "", None
    fields = said[said.rindex(b")") + 1 :].split()  # the name before may hold anything
    return fields[_STATE].decode(), int(fields[_STARTED])
