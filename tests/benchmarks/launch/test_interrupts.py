"""What a signal does while a run trains, and what its worker processes make of one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.launch import interrupts
from benchmarks.launch.interrupts import noticed
from benchmarks.launch.workers import WorkerInit


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_is_noted_and_its_echo_is_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now[0])
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with noticed() as notice:
        assert notice.told_by == ""
        signal.raise_signal(number)
        now[0] += interrupts.INSISTS_AFTER / 2
        signal.raise_signal(number)
        assert notice.told_by == name
        now[0] += interrupts.INSISTS_AFTER
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_slurms_second_signal_does_not_insist(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now[0])
    with noticed() as notice:
        signal.raise_signal(signal.SIGUSR1)
        now[0] += 120
        signal.raise_signal(signal.SIGTERM)
    assert notice.told_by == "SIGUSR1"


def test_a_hangup_ends_at_once_but_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), noticed():
            signal.raise_signal(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with noticed() as notice:
            signal.raise_signal(signal.SIGHUP)
        assert notice.told_by == ""
    finally:
        signal.signal(signal.SIGHUP, before)


class Pids(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return os.getpid()


def workers_signalled_from_outside(init: Any, folder: Path) -> list[int]:
    """Have another process than their parent send the workers a SIGTERM; then ask for more."""
    batches = iter(DataLoader(Pids(), batch_size=1, num_workers=1, worker_init_fn=init))
    pid = int(next(batches))
    sender = os.fork()
    if sender == 0:
        os.kill(pid, signal.SIGTERM)
        os._exit(0)
    os.waitpid(sender, 0)
    time.sleep(0.3)
    return [int(batch) for batch in batches]


def test_workers_outlive_what_is_not_their_parents_signal(tmp_path: Path) -> None:
    assert len(workers_signalled_from_outside(WorkerInit(None), tmp_path)) == 7


def test_control_other_workers_do_not(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed by signal: Terminated"):
        workers_signalled_from_outside(None, tmp_path)


def test_workers_end_when_their_parent_says_so() -> None:
    done: list[int] = []
    loader = DataLoader(
        Pids(), num_workers=1, persistent_workers=True, worker_init_fn=WorkerInit(done.append)
    )
    batches = iter(loader)
    pid = int(torch.as_tensor(next(batches)))
    os.kill(pid, signal.SIGTERM)
    (worker,) = batches._workers
    worker.join(5)
    assert worker.exitcode == 0
