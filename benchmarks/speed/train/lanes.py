"""Several trainings that take turns: each a process of its own, one of them at work at a time.

What a step takes depends on what else the machine does, and that changes from minute to minute;
and on the process, by how its memory lies. So steps are compared that follow each other in one,
with what measures switched on and off.
"""

from __future__ import annotations

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
from benchmarks.speed.train.switch import Switch

Seconds = dict[str, float]
"""Of each phase, and of the whole."""
Turn = tuple[Seconds, int]
"""What a lane tells after one: also the most bytes that it has held so far."""
PATIENCE = 30.0
"""Seconds that a lane that was told to end has for it."""
MEMORY = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62)}
"""Environment of all lanes: glibc keeps what they free. By itself it gives large blocks back to the
system, and what it takes to have them anew differs between processes and from minute to minute by
more than what is looked for."""


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

    What measures is switched on and off but in the plain loop, which has nothing that does.
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


@dataclass(frozen=True)
class Turns:
    """What all lanes told.

    Attributes:
        on: By lane, the seconds of each timed turn in which what measures was switched on.
        off: Likewise, of the turns beside those in which it was switched off; the plain loop has
            none.
        memory: By lane, the most bytes that it held.
    """

    on: dict[str, list[Seconds]]
    off: dict[str, list[Seconds]]
    memory: dict[str, int]

    def __or__(self, other: Turns) -> Turns:
        """Put together what different lanes told."""
        return Turns(self.on | other.on, self.off | other.off, self.memory | other.memory)


def take_turns(
    lanes: Sequence[Lane], device: torch.device, threads: int, rounds: int, warm_up: int, steps: int
) -> Turns:
    """Train all lanes, in turns; whoever goes first goes last next time.

    A lane takes one turn with what measures switched on and one with it off, in this order and
    in the other by turns.

    Args:
        lanes: The trainings.
        device: Where they train.
        threads: CPU threads of each.
        rounds: Timed turns of each, on and off.
        warm_up: Turns before those, all of them on, as many for all: a process has its memory
            together only after some, and the hook its verdicts.
        steps: Steps per turn.

    Raises:
        LaneEnded: See there.
    """
    context = multiprocessing.get_context("spawn")
    switched = {lane.name: lane.config is not None for lane in lanes}
    turns = Turns(
        {name: [] for name in switched},
        {name: [] for name, is_switched in switched.items() if is_switched},
        {},
    )
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
            is_timed = turn >= warm_up
            for name in order:
                states = (turn % 2 == 0, turn % 2 == 1) if is_timed and switched[name] else (True,)
                for is_on in states:
                    with suppress(BrokenPipeError):  # then there is nothing to hear either
                        ends[name].send(is_on)
                    heard, turns.memory[name] = _hear(ends[name], name)
                    if is_timed:
                        kept = turns.on if is_on else turns.off
                        kept[name].append({key: value / steps for key, value in heard.items()})
            order = order[1:] + order[:1]
    return turns


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
        end.send(None)
    process.join(PATIENCE)
    if process.is_alive():
        process.terminate()
        process.join()
    end.close()


def work(end: Connection, lane: Lane, device: str, threads: int, steps: int) -> None:
    """Train one lane until there are no turns left: what its process does."""
    torch.set_num_threads(threads)
    phases, switch = Phases(torch.device(device)), Switch()

    def hand_over(seconds: Seconds) -> None:
        end.send((seconds, _held(device)))
        told = end.recv()
        if told is None:
            raise _End
        switch.is_on = told

    with (
        tempfile.TemporaryDirectory(prefix="smd-hooks-train-") as work_dir,
        redirect_stdout(sys.stderr),
        suppress(_End, EOFError),
    ):
        training(lane, device, work_dir, phases, switch, hand_over, steps)()


def _held(device: str) -> int:
    """The most bytes that this process has held on its device."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def training(
    lane: Lane,
    device: str,
    work_dir: str,
    phases: Phases,
    switch: Switch,
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
    runner.register_hook(FirstHook(phases, switch))
    runner.register_hook(Probes(lane.probes))
    runner.register_hook(LastHook(phases, hand_over, steps))

    def train() -> None:
        with suppress(_End):
            runner.train()
        runner.call_hook("after_train")  # records are closed while their folder is there

    return train
