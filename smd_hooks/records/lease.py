"""A file that at most one process holds, on network file systems too, whatever became of others.

Who holds it has made it, with a record of itself, and touches it as long as it lives. One that died
on this machine is known by its process. One on another is dead when the file was not touched for
the lease's term, as this process's own clock counts that runs neither backwards nor by anybody's
time of day. Needed of the file system: that a file is made by one of several who try (``O_EXCL``)
and that a touch is seen by all. NFS since version 3, Lustre and SMB have both; to swap two names at
once, by which general lock libraries take stale files over, they have not.

A lease, unlike a lock, can be lost: to a process that was stopped, or cut off, for longer than the
term. It has to look at :attr:`Lease.lost`.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from .foreign_files import Unreadable, number_in, read_json_object
from .process_identity import ProcessIdentity, identity_in, this_process

TERM = 60.0
"""Seconds without a touch after which a holder on another machine counts as dead."""
_LOOK_EVERY = 1.0
_PATIENCE = 0.01
_MOST_BYTES = 4096


@dataclass(frozen=True)
class Sight:
    """What a lease's file was when it was looked at.

    Attributes:
        holder: Who holds it; None if its record cannot be read.
        token: What names this holding of it.
        term: Seconds after which it is over unless touched.
        stamp: Differs from that of every earlier touch, and of every other file there.
        touched: Unix time of the last touch, by the file system's clock.
    """

    holder: ProcessIdentity | None
    token: str
    term: float
    stamp: tuple[int, int, int]
    touched: float

    @property
    def lives_here(self) -> bool:
        """Whether its holder is a living process of this machine."""
        return self.holder is not None and self.holder.is_here and not self.holder.is_dead


def look_at(path: Path, term: float = TERM) -> Sight | None:
    """Return who holds a lease; None if nobody does.

    Args:
        path: The lease's file.
        term: Of a holder that does not say its own.

    Raises:
        OSError: The folder cannot be looked into.
    """
    try:
        # opening it has a network file system ask its server, where stat() may answer from memory
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    stamp = found.st_ino, found.st_mtime_ns, found.st_ctime_ns
    try:
        record = read_json_object(path, _MOST_BYTES)
    except Unreadable:  # just being written, or half of it by one that died
        record = {}
    token, said = record.get("token"), number_in(record.get("term"))
    known = identity_in(record)
    if known is None or not isinstance(token, str) or said is None or not 0 < said < 86400:
        return Sight(None, "", term, stamp, found.st_mtime)
    return Sight(known, token, said, stamp, found.st_mtime)


def is_held(path: Path) -> bool:
    """Whether somebody holds a lease, as far as one look can tell.

    Who died on this machine does not. Of one elsewhere the last touch is compared with the time of
    day, and it counts as alive for twice the term: only taking the lease is sure of it.
    """
    try:
        sight = look_at(path)
    except OSError:
        return False
    if sight is None or (sight.holder and sight.holder.is_dead):
        return False
    return sight.lives_here or time.time() - sight.touched < 2 * sight.term


@contextmanager
def held(path: Path, term: float = TERM) -> Iterator[None]:
    """Hold a lease for a moment, after all others who want the same.

    Raises:
        TimeoutError: Somebody else holds it for several terms.
        OSError: The folder cannot be written to.
    """
    lease, until = Lease(path, term), time.monotonic() + 3 * term
    while not lease.take():
        if time.monotonic() > until:
            holder = lease.sight and lease.sight.holder
            raise TimeoutError(f"{path} is held by {holder or 'somebody'}; if not, remove {path}*")
        time.sleep(_PATIENCE)
    try:
        yield
    finally:
        lease.release()


class Lease:
    """A file that this process tries to hold, or holds.

    Args:
        path: The file; its folder must be there.
        term: Seconds; the same for all who want it.
    """

    def __init__(self, path: Path, term: float = TERM) -> None:
        self.path, self.term = Path(path), term
        self.sight: Sight | None = None
        """Who held it when that was last looked at."""
        self.is_renewed = False
        """Whether that holder has given a sign of life since this process first looked."""
        self._seen_since = 0.0
        self._guard: Sight | None = None
        self._guarded_since = 0.0
        self._token, self._pid, self._lost, self._looked = "", 0, "", 0.0
        self._ended, self._heart = threading.Event(), threading.Thread()

    def take(self) -> bool:
        """Try to hold it, once; call again to find out whether a holder elsewhere still lives.

        Returns:
            Whether it is held now.

        Raises:
            OSError: The folder cannot be written to, or the file not be touched.
        """
        if self._create():
            return True
        sight = look_at(self.path, self.term)
        if sight is None or self._is_abandoned(sight):
            # who held it is gone: the next try need not wait
            return (sight is None or self._clear(sight)) and self._create()
        return False

    def is_free(self) -> bool:
        """Look, without trying to hold it, whether nobody does; call again as of :meth:`take`.

        Returns:
            Whether there is no holder, or it is gone; also where the folder cannot be looked into.
        """
        try:
            sight = look_at(self.path, self.term)
        except OSError:
            return True
        return sight is None or self._is_abandoned(sight)

    def release(self) -> None:
        """Let go of it; in a process forked from the holder, do nothing."""
        if not self._token or os.getpid() != self._pid:
            return
        self._ended.set()
        self._heart.join(self.term)
        with suppress(OSError):
            sight = look_at(self.path)
            if sight is not None and sight.token == self._token:
                self.path.unlink()
        self._token = ""

    @property
    def is_held(self) -> bool:
        """Whether this process has taken it and not let go of it."""
        return bool(self._token)

    @property
    def is_anothers(self) -> bool:
        """Whether the holder last seen is known to live, on this machine or elsewhere."""
        return self.sight is not None and (self.sight.lives_here or self.is_renewed)

    @property
    def lost(self) -> str:
        """Why this process, which held it, does so no more, in a line; "" as long as it does."""
        if self._token and not self._lost and time.monotonic() - self._looked > _LOOK_EVERY:
            with suppress(OSError):  # the thread that touches it gives up, in time
                self._check()
        return self._lost

    def _create(self) -> bool:
        """Make the file, if there is none, and keep touching it."""
        token = secrets.token_hex(16)
        record = {**asdict(this_process()), "token": token, "term": self.term}
        try:
            fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            with open(fd, "w", encoding="utf-8") as file:
                json.dump(record, file)
            os.utime(self.path)  # one that cannot be touched cannot be held
        except BaseException:
            with suppress(OSError):
                self.path.unlink()
            raise
        self._token, self._pid, self._lost, self._looked = token, os.getpid(), "", time.monotonic()
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._heart.start()
        return True

    def _is_abandoned(self, sight: Sight) -> bool:
        now, before = time.monotonic(), self.sight
        if before is None or before.stamp != sight.stamp:
            self.is_renewed = before is not None and before.token == sight.token
            self.sight, self._seen_since = sight, now
        dead = sight.holder is not None and sight.holder.is_dead
        return dead or now - self._seen_since > sight.term

    def _clear(self, judged: Sight) -> bool:
        """Remove the file of a holder that is gone: one process at a time, and no other's."""
        guard = self.path.with_name(f"{self.path.name}.clearing")
        try:
            os.close(os.open(guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            self._drop_stale(guard)
            return False
        try:
            sight = look_at(self.path, self.term)
            if sight is None or sight.stamp != judged.stamp:
                return False
            self.path.unlink(missing_ok=True)
            return True
        finally:
            guard.unlink(missing_ok=True)

    def _drop_stale(self, guard: Path) -> None:
        """Remove the guard of one that died: the living need it for a moment, not for a term."""
        sight, now = look_at(guard, self.term), time.monotonic()
        if sight is None or self._guard is None or self._guard.stamp != sight.stamp:
            self._guard, self._guarded_since = sight, now
        elif now - self._guarded_since > self.term:
            # then all begin anew: who removes it is no sooner inside than the others
            guard.unlink(missing_ok=True)

    def _beat(self) -> None:
        """Touch the file three times a term, until it is another's or cannot be touched."""
        ended, every = self._ended, self.term / 3
        touched = time.monotonic()
        while not ended.wait(every):
            try:
                if self._check():
                    return
                os.utime(self.path)
                touched = time.monotonic()
            except OSError as error:
                if time.monotonic() - touched > self.term - every:
                    self._lost = f"{self.path} cannot be touched: {error.strerror or error}"
                    return

    def _check(self) -> str:
        """Find out whether the file is still ours; what is lost once stays so."""
        sight, self._looked = look_at(self.path), time.monotonic()
        if sight is None:
            self._lost = f"{self.path} was removed"
        elif sight.token and sight.token != self._token:
            self._lost = f"{sight.holder or 'somebody'} has taken it over"
        return self._lost
