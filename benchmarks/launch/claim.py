"""Which launch a run's folder belongs to: two never write into one.

The claim is a file in the work dir, ``.claim``, held as a lease (:mod:`smd_hooks.records.lease`).
It outlives a launch that was killed, and keeps nobody out then: on the same machine the next
launch finds its process gone, from another it watches the file for a minute.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import UsageError
from smd_hooks.records.lease import TERM, Lease, is_held

CLAIM_FILE = ".claim"
KNOWN_LAUNCH = "SMD_HOOKS_KNOWN_LAUNCH"
"""Environment variable by which a sweep names the newest launch that it knows of; "" for none."""
HELD = "is being trained already, by"
"""What a refusal says: by it a sweep tells a run that is trained elsewhere from one that failed."""
_LOOK_EVERY = 0.2
_SAY_AFTER = 1.0
_OPENED_AGAIN = 5
"""Times that a folder may be removed from under us by a launch that found it empty."""


@dataclass(frozen=True)
class Claim:
    """A work dir that this launch alone writes into, as long as nothing is :attr:`lost`."""

    lease: Lease

    @property
    def lost(self) -> str:
        """Why the folder is no longer ours, in a line; "" as long as it is. Looks once a second."""
        reason = self.lease.lost
        return reason and f"the claim on {self.lease.path.parent} is lost: {reason}"


@contextmanager
def claimed(work_dir: Path, term: float = TERM) -> Iterator[Claim]:
    """Hold the claim on a work dir; make the folder, and remove it again if it is left empty.

    A claim left behind on another machine is waited for, up to ``term`` seconds; a line says so.

    Args:
        work_dir: The run's folder.
        term: Seconds without a sign of life after which a launch elsewhere counts as dead; the
            same for all launches.

    Raises:
        UsageError: Another launch holds it, or the folder cannot be written to.
    """
    lease = Lease(work_dir / CLAIM_FILE, term)
    new = [folder for folder in (work_dir, *work_dir.absolute().parents) if not folder.exists()]
    try:
        _take(lease, work_dir)
        try:
            yield Claim(lease)
        finally:
            lease.release()
    finally:
        with suppress(OSError):  # not empty: it stays
            for folder in new:
                folder.rmdir()


def check_known(work_dir: Path) -> None:
    """Refuse to train what somebody has trained since a sweep launched this process.

    It takes some seconds until a process claims its folder: one that another sweep has begun
    before, and that was killed, may have ended by then.

    Raises:
        UsageError: There is a later launch than the sweep knew of.
    """
    known = os.environ.get(KNOWN_LAUNCH)
    newest = max((path.name for path in work_dir.glob("*_*/")), default="")
    if known is not None and newest > known:
        raise UsageError(f"{work_dir} {HELD} a launch that began meanwhile, {newest}")


def is_claimed(work_dir: Path) -> bool:
    """Whether a launch holds the claim on a work dir, as far as one look can tell."""
    return is_held(work_dir / CLAIM_FILE)


def _take(lease: Lease, work_dir: Path) -> None:
    began, said = time.monotonic(), False
    while not _try(lease, work_dir):
        sight, waited = lease.sight, time.monotonic() - began
        if sight and lease.is_anothers:
            raise UsageError(
                f"{work_dir} {HELD} {sight.holder or 'somebody'}: wait until that has ended, end "
                "it, or take another --work-dir"
            )
        if sight and waited > 3 * sight.term + _SAY_AFTER:
            raise UsageError(
                f"the claim of {sight.holder or 'nobody known'} on {work_dir} is over, but cannot "
                f"be removed: if nothing trains there, remove {lease.path}*"
            )
        if sight and waited > _SAY_AFTER and not said:
            said = True
            print(
                f"{work_dir} was claimed by {sight.holder or 'nobody known'}: going on in "
                f"{sight.term:.0f} s unless that gives a sign of life",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(min(_LOOK_EVERY, lease.term / 10))


def _try(lease: Lease, work_dir: Path) -> bool:
    for attempt in range(1, _OPENED_AGAIN + 1):
        try:
            work_dir.mkdir(parents=True, exist_ok=True)
            return lease.take()
        except OSError as error:
            if isinstance(error, FileNotFoundError) and attempt < _OPENED_AGAIN:
                continue
            why = error.strerror or error
            raise UsageError(
                f"work dir {work_dir} cannot be claimed: {why}; make room or choose another"
            ) from error
    return False
