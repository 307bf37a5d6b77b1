from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from smd_hooks.records import lease as lease_module
from smd_hooks.records.lease import Lease, look_at
from smd_hooks.records.process_identity import identity_in, this_process

TERM = 0.6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".claim"


class Holder:
    """A process that holds a lease until it is ended; it notes what it loses."""

    def __init__(self, path: Path, host: str = "", term: float = TERM) -> None:
        self.noted = path.with_name("noted")
        self.pid = os.fork()
        if not self.pid:
            if host:
                socket.gethostname = lambda: host
            held = Lease(path, term)
            taken = held.take()
            while taken and not held.lost:
                time.sleep(0.02)
            self.noted.write_text(held.lost or "not taken")
            os._exit(0)
        wait_for(lambda: look_at(path) is not None and look_at(path).holder is not None)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> None:
        with suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@pytest.fixture
def hold(path: Path) -> Iterator[Callable[..., Holder]]:
    holders: list[Holder] = []

    def start(**options: object) -> Holder:
        holders.append(Holder(path, **options))  # type: ignore[arg-type]
        return holders[-1]

    yield start
    for holder in holders:
        holder.end()


def wait_for(true: Callable[[], object], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def seconds_until_taken(held: Lease) -> float:
    began = time.monotonic()
    wait_for(held.take)
    return time.monotonic() - began


def test_one_of_two_has_it_until_it_lets_go(path: Path) -> None:
    one, other = Lease(path), Lease(path)
    assert one.take()
    assert not one.lost
    assert not other.take()
    assert other.sight is not None
    assert other.sight.holder is not None
    assert (other.sight.holder.pid, other.sight.holder.is_dead) == (os.getpid(), False)
    other.release()  # it has nothing to let go of
    assert not other.take()
    one.release()
    assert list(path.parent.iterdir()) == []
    assert other.take()
    other.release()


def test_of_many_at_once_one_gets_it(path: Path) -> None:
    """Also where the file of a dead one lies there, which all of them want to clear away."""
    dead = Holder(path)
    dead.end()
    read, write = os.pipe()
    children = []
    for _ in range(12):
        children.append(os.fork())
        if not children[-1]:
            held, tries = Lease(path), 0
            while not (taken := held.take()) and (tries := tries + 1) < 300:
                time.sleep(0.001)
            os.write(write, b"x" if taken else b"-")
            signal.pause()  # who has it must not end before the last one has tried
    told = b"".join(os.read(read, 1) for _ in children)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(read), os.close(write)
    assert sorted(told.decode()) == ["-"] * 11 + ["x"]


@pytest.mark.parametrize("reaped", [True, False])
def test_one_that_was_killed_here_keeps_nobody_waiting(
    path: Path, hold: Callable[..., Holder], reaped: bool
) -> None:
    """Even before its parent has asked for its exit code: its number is taken as long as that."""
    holder = hold(term=60.0)
    held = Lease(path)
    assert not held.take()  # control: it lives
    if reaped:
        holder.end()
    else:
        holder.signal(signal.SIGKILL)
        wait_for(lambda: f"{holder.pid} (" in Path(f"/proc/{holder.pid}/stat").read_text())
        wait_for(lambda: b") Z " in Path(f"/proc/{holder.pid}/stat").read_bytes())
    assert held.take()
    held.release()


def test_its_number_may_have_gone_to_another_process(path: Path) -> None:
    mine = this_process()
    assert not mine.is_dead
    assert mine.started is not None
    assert replace(mine, started=mine.started - 1).is_dead
    assert not replace(mine, started=None).is_dead  # nothing is known of it
    elsewhere = replace(mine, space="another boot", started=mine.started - 1)
    assert not elsewhere.is_dead
    assert not replace(elsewhere, host="elsewhere").is_dead


def test_one_that_lives_elsewhere_keeps_it_and_one_that_died_there_does_not(
    path: Path, hold: Callable[..., Holder]
) -> None:
    term = 2 * TERM  # a machine that has much to do keeps the holder from touching for a while
    holder = hold(host="elsewhere", term=term)
    held = Lease(path, term)
    until = time.monotonic() + 3 * term
    while time.monotonic() < until:
        assert not held.take()
        time.sleep(0.02)
    assert held.is_renewed
    assert held.sight is not None
    assert "on elsewhere since" in str(held.sight.holder)
    holder.end()  # which takes a while, too, of a process that is large
    touched = path.stat().st_mtime
    wait_for(held.take)
    assert term < time.time() - touched < 3 * term
    held.release()


def test_one_that_was_stopped_notices_that_it_lost_it(
    path: Path, hold: Callable[..., Holder]
) -> None:
    holder = hold(host="elsewhere")
    holder.signal(signal.SIGSTOP)
    held = Lease(path, TERM)
    assert seconds_until_taken(held) > 0.9 * TERM
    holder.signal(signal.SIGCONT)
    wait_for(holder.noted.exists)
    wait_for(holder.noted.read_text)
    assert "has taken it over" in holder.noted.read_text()
    time.sleep(TERM)
    assert held.lost == ""  # and it takes nothing back
    held.release()
    assert not path.exists()


@pytest.mark.parametrize("shift", [-1e6, 1e6])
def test_the_time_of_day_does_not_matter(
    path: Path, hold: Callable[..., Holder], monkeypatch: pytest.MonkeyPatch, shift: float
) -> None:
    now = time.time
    hold(host="elsewhere")
    held = Lease(path, TERM)
    assert not held.take()
    monkeypatch.setattr(lease_module.time, "time", lambda: now() + shift)
    until = time.monotonic() + 2 * TERM
    while time.monotonic() < until:
        assert not held.take()
        time.sleep(0.02)


def test_a_removed_file_is_a_lost_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "_LOOK_EVERY", 0.0)
    held = Lease(path)
    assert held.take()
    path.unlink()
    assert "was removed" in held.lost
    held.release()
    assert held.take()
    assert not held.lost  # taken anew
    held.release()


def test_one_that_cannot_be_touched_any_more_is_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Lease(path, TERM)
    assert held.take()

    def refused(*args: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(lease_module.os, "utime", refused)
    began = time.monotonic()
    wait_for(lambda: held.lost)
    assert "cannot be touched: Input/output error" in held.lost
    assert TERM / 3 < time.monotonic() - began < 1.5 * TERM  # before another may take it
    held.release()


def test_one_that_can_never_be_touched_is_not_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(lease_module.os, "utime", refused)
    with pytest.raises(PermissionError):
        Lease(path).take()
    assert not path.exists()


def test_a_forked_process_neither_keeps_nor_releases_it(path: Path) -> None:
    held = Lease(path)
    assert held.take()
    child = os.fork()
    if not child:
        held.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert path.exists()
    assert not Lease(path).take()
    outlives = os.fork()
    if not outlives:
        time.sleep(30)
        os._exit(0)
    held.release()
    other = Lease(path)
    assert other.take()
    other.release()
    os.kill(outlives, signal.SIGKILL)
    os.waitpid(outlives, 0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff" * 10,
        b"[]",
        b'{"pid": 1}',
        b"x" * 5000,
        json.dumps({**asdict(this_process()), "pid": 2**70, "token": "t", "term": 1.0}).encode(),
        json.dumps({**asdict(this_process()), "token": "t", "term": -1.0}).encode(),
    ],
)
def test_what_no_one_can_read_is_left_alone_for_a_term(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    sight = look_at(path)
    assert sight is not None
    assert sight.holder is None
    held = Lease(path, 0.2)
    assert not held.take()
    assert 0.15 < seconds_until_taken(held) < 2.0
    held.release()


def test_a_guard_left_behind_lets_nobody_in_for_a_term(path: Path) -> None:
    """Who clears a file away may be killed while at it; and who lives is at it for no term."""
    Holder(path).end()
    guard = path.with_name(".claim.clearing")
    guard.touch()
    held = Lease(path, TERM)
    assert not held.take()
    time.sleep(0.7 * TERM)
    guard.touch()  # another has taken it over meanwhile
    assert 0.9 * TERM < seconds_until_taken(held) < 3 * TERM
    assert not guard.exists()
    held.release()


def test_one_that_only_looks_takes_nothing(path: Path, hold: Callable[..., Holder]) -> None:
    watch = Lease(path, TERM)
    assert watch.is_free()
    holder = hold(host="elsewhere")
    assert not watch.is_free()
    assert not watch.is_anothers  # so far it may be dead
    wait_for(lambda: not watch.is_free() and watch.is_anothers)
    holder.end()
    wait_for(watch.is_free)
    assert path.exists()


def test_identities_are_read_back_as_written() -> None:
    mine = this_process()
    assert identity_in(json.loads(json.dumps(asdict(mine)))) == mine
    assert identity_in({**asdict(mine), "since": 1e300}) is None
    assert identity_in({**asdict(mine), "host": 3}) is None
