from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from benchmarks.errors import UsageError
from benchmarks.launch.claim import (
    CLAIM_FILE,
    HELD,
    KNOWN_LAUNCH,
    check_known,
    claimed,
    is_claimed,
)
from smd_hooks.analysis import load_runs
from smd_hooks.records import lease
from tests.analysis.work_dirs import launch

TERM = 0.6


@contextmanager
def other_launch(work_dir: Path, host: str = "", term: float = TERM) -> Iterator[int]:
    """A process that holds the claim until the end, or until it is killed."""
    pid = os.fork()
    if not pid:
        if host:
            socket.gethostname = lambda: host
        with claimed(work_dir, term):
            signal.pause()
    try:
        until = time.monotonic() + 10
        while not (work_dir / CLAIM_FILE).exists() or lease.look_at(work_dir / CLAIM_FILE) is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        yield pid
    finally:
        with suppress(OSError):
            end(pid)


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_claim_ends_with_its_launch_and_leaves_nothing(tmp_path: Path) -> None:
    work_dir = tmp_path / "new" / "run"
    assert not is_claimed(work_dir)
    with claimed(work_dir) as claim:
        assert claim.lost == ""
        assert is_claimed(work_dir)
    assert not is_claimed(work_dir)
    assert list(tmp_path.iterdir()) == []  # a config that cannot be built leaves no folder
    work_dir.mkdir(parents=True)
    with claimed(work_dir):
        (work_dir / "kept").touch()
    assert [path.name for path in work_dir.iterdir()] == ["kept"]


def test_a_second_launch_is_refused_in_one_line(tmp_path: Path) -> None:
    with other_launch(tmp_path, term=60) as pid:
        began = time.monotonic()
        with pytest.raises(UsageError) as caught, claimed(tmp_path):
            pass
        assert time.monotonic() - began < 5.0
        assert is_claimed(tmp_path)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path} {HELD} process {pid} on {socket.gethostname()} since 20")
    assert "another --work-dir" in line
    assert "\n" not in line


def test_one_that_was_killed_here_is_followed_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with other_launch(tmp_path, term=60) as pid:
        end(pid)
        assert (tmp_path / CLAIM_FILE).exists()
        assert not is_claimed(tmp_path)
        began = time.monotonic()
        with claimed(tmp_path) as claim:
            assert time.monotonic() - began < 2.0
            assert claim.lost == ""
    assert capsys.readouterr().err == ""


def test_one_elsewhere_is_refused_while_it_lives_and_followed_when_it_is_dead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with other_launch(tmp_path, host="elsewhere", term=3.0) as pid:
        with pytest.raises(UsageError, match="on elsewhere since"), claimed(tmp_path, 3.0):
            pass
        assert is_claimed(tmp_path)
        end(pid)
        assert is_claimed(tmp_path)  # nothing shows yet that it is dead
        capsys.readouterr()
        with claimed(tmp_path, 3.0):
            said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path} was claimed by process {pid} on elsewhere since ")
    assert said.endswith(": going on in 3 s unless that gives a sign of life\n")
    assert said.count("\n") == 1


def test_of_one_elsewhere_that_says_nothing_any_more_a_look_can_tell(tmp_path: Path) -> None:
    with other_launch(tmp_path, host="elsewhere", term=TERM) as pid:
        end(pid)
        for age, alive in ((0.0, True), (1.9 * TERM, True), (2.5 * TERM, False), (-1e6, True)):
            then = time.time() - age
            os.utime(tmp_path / CLAIM_FILE, (then, then))
            assert is_claimed(tmp_path) is alive


def test_one_that_was_taken_over_says_so(tmp_path: Path) -> None:
    """Stopped for longer than the term, as this process would be: then its file is another's."""
    with claimed(tmp_path, 60.0) as claim:
        (tmp_path / CLAIM_FILE).unlink()
        with other_launch(tmp_path, host="elsewhere", term=60.0):
            until = time.monotonic() + 10
            while not claim.lost and time.monotonic() < until:
                time.sleep(0.05)
            assert claim.lost.startswith(f"the claim on {tmp_path} is lost: process ")
            assert "on elsewhere since" in claim.lost
    assert (tmp_path / CLAIM_FILE).exists()  # the other's, killed, and not ours to remove


def test_what_cannot_be_written_to_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        UsageError, match=r"work dir .*/file/run cannot be claimed: Not a directory"
    ):
        claimed(tmp_path / "file" / "run").__enter__()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lease.os, "utime", full)
    with pytest.raises(UsageError, match="cannot be claimed: No space left on device"):
        claimed(tmp_path / "run").__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
def test_a_read_only_file_system_is_said_in_one_line(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        for work_dir in (tmp_path, tmp_path / "run"):
            with pytest.raises(UsageError, match="cannot be claimed: Read-only file system"):
                claimed(work_dir).__enter__()
        assert not is_claimed(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_claim_that_cannot_be_removed_ends_the_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with other_launch(tmp_path, host="elsewhere", term=TERM) as pid:
        end(pid)
        monkeypatch.setattr(lease.Lease, "_clear", lambda self, judged: False)
        with pytest.raises(UsageError, match=r"if nothing trains there, remove .*/\.claim\*"):
            claimed(tmp_path, TERM).__enter__()
    assert capsys.readouterr().err.count("\n") == 1


def test_who_was_killed_while_clearing_a_claim_away_keeps_nobody_out(tmp_path: Path) -> None:
    with other_launch(tmp_path, host="elsewhere", term=TERM) as pid:
        end(pid)
        guard = tmp_path / f"{CLAIM_FILE}.clearing"
        guard.touch()
        with claimed(tmp_path, TERM):
            assert not guard.exists()


def test_workers_of_a_loader_neither_keep_nor_release_it(tmp_path: Path) -> None:
    with claimed(tmp_path) as claim:
        loader = DataLoader(list(range(8)), num_workers=2, persistent_workers=True)
        assert len(list(loader)) == 8
        pids = [worker.pid for worker in loader._iterator._workers]
        del loader
        until = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
            time.sleep(0.01)
        assert claim.lost == ""
        assert is_claimed(tmp_path)
        loader = DataLoader(list(range(8)), num_workers=2, persistent_workers=True)
        assert len(list(loader)) == 8
    assert not is_claimed(tmp_path)  # though they live
    del loader


def test_readers_of_runs_do_not_see_it(tmp_path: Path) -> None:
    launch(tmp_path / "run", "20260101_000000")
    before = [(run.name, run.status) for run in load_runs(tmp_path)]
    with claimed(tmp_path / "run"), claimed(tmp_path / "not-begun"):
        assert [(run.name, run.status) for run in load_runs(tmp_path)] == before


def test_what_was_trained_since_a_sweep_looked_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_known(tmp_path)  # nobody says what is known
    monkeypatch.setenv(KNOWN_LAUNCH, "")
    check_known(tmp_path)
    (tmp_path / "20260101_000000").mkdir()
    with pytest.raises(UsageError, match=rf"{HELD} a launch that began meanwhile, 20260101_000000"):
        check_known(tmp_path)
    monkeypatch.setenv(KNOWN_LAUNCH, "20260101_000000")
    check_known(tmp_path)
