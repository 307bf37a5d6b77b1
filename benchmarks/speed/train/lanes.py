"""Several trainings that take turns: each a process of its own, one of them at work at a time.

What a step takes depends on what else the machine does, and that changes from minute to minute.
Steps that follow each other see the same machine.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.input import build
from benchmarks.speed.train.phases import FirstHook, LastHook, Phases, Probes

Seconds = dict[str, float]
"""Of each phase, and of the whole."""
Turn = tuple[Seconds, int]
"""What a lane tells after one: also the most bytes that it has held so far."""
PATIENCE = 30.0
"""Seconds that a lane that was told to end has for it."""
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**62)}
"""Environment of all lanes: freed memory is kept but for blocks of 32 MiB and more, the state that
glibc tends to. How soon depends on what a process frees, and trainings alike but for the hook
would differ in whether each step faults its activations in anew. Between turns all goes back."""


class LaneEnded(RuntimeError):
    """A training came to an end, or was ended, before its last turn."""


@dataclass(frozen=True)
class Lane:
    """One training.

    Attributes:
        name: What it is called in the table.
        config: The config that MMEngine's Runner trains; None for the plain loop.
        options: What is set in the config, by dotted path.
        data_root: Where the plain loop's pictures are.
        batch: Pictures per step, of the plain loop.
        workers: Its loader's processes.
        probes: How many hang on the optimizer beside the config's hooks.
    """

    name: str
    config: Path | None
    options: Mapping[str, Any] = field(default_factory=dict)
    data_root: Path | None = None
    batch: int = 0
    workers: int = 0
    probes: int = 0


class _End(BaseException):
    """The conductor has no turns left. (No Exception: those are a training's own.)"""


def take_turns(
    lanes: Sequence[Lane], device: torch.device, threads: int, rounds: int, warm_up: int, steps: int
) -> tuple[dict[str, list[Seconds]], dict[str, int]]:
    """Train all lanes, so many steps each in turn; whoever goes first goes last next time.

    Args:
        lanes: The trainings.
        device: Where they train.
        threads: CPU threads of each.
        rounds: Timed turns of each.
        warm_up: Turns before those, as many for all: a process has its memory together only after
            some.
        steps: Steps per turn.

    Returns:
        By lane, the seconds of each timed turn; and the most bytes that it held.

    Raises:
        LaneEnded: See there.
    """
    context = multiprocessing.get_context("spawn")
    seconds: dict[str, list[Seconds]] = {lane.name: [] for lane in lanes}
    memory: dict[str, int] = {}
    with ExitStack() as stack, environment(MEMORY):
        ends: dict[str, Connection] = {}
        for lane in lanes:
            ours, theirs = context.Pipe()
            process = context.Process(
                target=work, args=(theirs, lane, device.type, threads, steps), daemon=False
            )
            process.start()
            theirs.close()
            ends[lane.name] = ours
            stack.callback(_end, process, ours)
        for name, end in ends.items():
            _hear(end, name)  # built, and waiting
        order = list(ends)
        for turn in range(warm_up + rounds):
            for name in order:
                with suppress(BrokenPipeError):  # then there is nothing to hear either
                    ends[name].send(True)
                heard, memory[name] = _hear(ends[name], name)
                if turn >= warm_up:
                    seconds[name].append({key: value / steps for key, value in heard.items()})
            order = order[1:] + order[:1]
    return seconds, memory


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set what processes find in their environment that are started meanwhile."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _hear(end: Connection, name: str) -> Turn:
    try:
        heard: Turn = end.recv()
    except (EOFError, ConnectionResetError):
        raise LaneEnded(
            f"the training '{name}' ended by itself: it may have told why on stderr; what is "
            "killed for lack of memory tells nothing"
        ) from None
    return heard


def _end(process: Any, end: Connection) -> None:
    with suppress(OSError):  # it may be gone
        end.send(False)
    process.join(PATIENCE)
    if process.is_alive():
        process.terminate()
        process.join()
    end.close()


def work(end: Connection, lane: Lane, device: str, threads: int, steps: int) -> None:
    """Train one lane until there are no turns left: what its process does."""
    torch.set_num_threads(threads)
    phases = Phases(torch.device(device))

    def hand_over(seconds: Seconds) -> None:
        _give_memory_back()
        end.send((seconds, _held(device)))
        if not end.recv():
            raise _End

    with (
        tempfile.TemporaryDirectory(prefix="smd-hooks-train-") as work_dir,
        redirect_stdout(sys.stderr),
        suppress(_End, EOFError),
    ):
        training(lane, device, work_dir, phases, hand_over, steps)()


def _held(device: str) -> int:
    """The most bytes that this process has held on its device."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _give_memory_back() -> None:
    """Leave to the lane whose turn it is what this one has freed, where glibc's malloc is."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def training(
    lane: Lane,
    device: str,
    work_dir: str,
    phases: Phases,
    hand_over: Callable[[Seconds], None],
    steps: int,
) -> Callable[[], Any]:
    """Build a lane's training; return what runs it."""
    if lane.config is None:
        assert lane.data_root is not None
        from benchmarks.speed.train.plain_loop import plain_loop  # torchvision takes a second

        loop = (lane.data_root, lane.batch, lane.workers, torch.device(device))
        return lambda: plain_loop(*loop, phases, hand_over, steps)
    runner = build(lane.config, dict(lane.options), work_dir)
    runner.register_hook(FirstHook(phases))
    runner.register_hook(Probes(lane.probes))
    runner.register_hook(LastHook(phases, hand_over, steps))
    return runner.train
