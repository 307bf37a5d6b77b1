"""Time and memory of what stands between marks on an optimizer's step.

A method that measures steps hooks onto the optimizer before and after the step. Marks on
both sides of its hooks leave the step itself out, and leave it real: the weights move,
and the caches are as a step leaves them.
"""

from __future__ import annotations

import gc
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.autograd.profiler import profile, record_function
from torch.optim import Optimizer

Named = Sequence[tuple[str, Tensor]]
Result = TypeVar("Result")
Spans = list[tuple[int, int]]


class Attached(Protocol):
    """What hangs on an optimizer's step hooks, and can be taken off."""

    def detach(self) -> None:
        """Remove the hooks."""


Method = Callable[[Optimizer, Named], Attached]
"""Attaches something to an optimizer that holds these named parameters."""


class Stopwatch:
    """Adds up the time between the odd marks and the even ones that follow them.

    On CUDA the marks are events in the stream: setting one never waits.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[Any] = []

    def mark(self, *_: Any) -> None:
        """Set a mark; it takes whatever a step hook is called with."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def read(self) -> float:
        """Return the seconds since the last reading, and begin anew; waits for the device."""
        marks, self._marks = self._marks, []
        pairs = zip(marks[::2], marks[1::2], strict=True)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return sum(start.elapsed_time(end) for start, end in pairs) / 1e3
        return sum(end - start for start, end in pairs)


@contextmanager
def between_marks(
    optimizer: Optimizer,
    named: Named,
    method: Method,
    start: Callable[..., None],
    stop: Callable[..., None],
) -> Iterator[Attached]:
    """Attach a method, with ``start`` called before and ``stop`` after each of its hooks."""
    handles = [optimizer.register_step_pre_hook(start), optimizer.register_step_post_hook(start)]
    attached = method(optimizer, named)
    handles += [optimizer.register_step_pre_hook(stop), optimizer.register_step_post_hook(stop)]
    try:
        yield attached
    finally:
        attached.detach()
        for handle in handles:
            handle.remove()


@contextmanager
def without_synchronisation(device: torch.device) -> Iterator[None]:
    """Raise RuntimeError where the host would wait for the GPU; nothing to check on a CPU."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def peak_memory(optimizer: Optimizer, named: Named, method: Method, device: torch.device) -> int:
    """Return the most bytes of tensors that a method holds while its hooks run.

    What it keeps from its construction on counts; what the optimizer's own step needs in
    between does not.
    """
    if device.type == "cuda":
        return _peak_on_cuda(optimizer, named, method)
    label = "between marks"
    open_labels: list[record_function] = []

    def start(*_: Any) -> None:
        open_labels.append(record_function(label))
        open_labels[-1].__enter__()

    def stop(*_: Any) -> None:
        open_labels.pop().__exit__(None, None, None)

    with (
        profile(profile_memory=True) as profiler,
        between_marks(optimizer, named, method, start, stop),
    ):
        for _ in range(2):
            optimizer.step()
    spans, changes = _spans_and_changes(profiler, label)
    moments = [moment for moment, _ in changes]
    held = list(accumulate((change for _, change in changes), initial=0))
    # what is held when a span begins, and after each change within it
    return max(
        max(held[bisect_left(moments, begin) : bisect_right(moments, end) + 1])
        for begin, end in spans
    )


def memory_kept(
    works: Sequence[Callable[[], Result]], device: torch.device
) -> list[tuple[Result, int]]:
    """Do one work after the other; return each one's result and the bytes that it leaves.

    Garbage in reference cycles is collected before and after each: it is freed by chance else,
    in whatever work is under way.
    """
    if device.type == "cuda":
        return [_kept_on_cuda(work) for work in works]
    label, results = "work", []
    with profile(profile_memory=True) as profiler:
        for work in works:
            gc.collect()
            with record_function(label):
                results.append(work())
                gc.collect()
    spans, changes = _spans_and_changes(profiler, label)
    kept = [sum(change for at, change in changes if begin <= at <= end) for begin, end in spans]
    return list(zip(results, kept, strict=True))


def memory_peaks(works: Sequence[Callable[[], Any]], device: torch.device) -> list[int]:
    """Do one work after the other; return the most bytes that each held beside what was there.

    Garbage in reference cycles is collected before each.
    """
    if device.type == "cuda":
        return [_peak_of_work_on_cuda(work) for work in works]
    label = "work"
    with profile(profile_memory=True) as profiler:
        for work in works:
            gc.collect()
            with record_function(label):
                work()
    spans, changes = _spans_and_changes(profiler, label)
    return [
        max(accumulate((change for at, change in changes if begin <= at <= end), initial=0))
        for begin, end in spans
    ]


def _peak_of_work_on_cuda(work: Callable[[], Any]) -> int:
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return torch.cuda.max_memory_allocated() - before


def _kept_on_cuda(work: Callable[[], Result]) -> tuple[Result, int]:
    gc.collect()
    before = torch.cuda.memory_allocated()
    result = work()
    gc.collect()
    return result, torch.cuda.memory_allocated() - before


def _spans_and_changes(profiler: Any, label: str) -> tuple[Spans, Spans]:
    """Return (begin, end) of what has the label, and (moment, bytes) of memory's changes."""
    events = profiler.kineto_results.events()
    spans = [(e.start_ns(), e.start_ns() + e.duration_ns()) for e in events if e.name() == label]
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    return sorted(spans), sorted(changes)


def _peak_on_cuda(optimizer: Optimizer, named: Named, method: Method) -> int:
    peaks = []

    def start(*_: Any) -> None:
        torch.cuda.reset_peak_memory_stats()

    def stop(*_: Any) -> None:
        peaks.append(torch.cuda.max_memory_allocated())

    at_rest = torch.cuda.memory_allocated()
    with between_marks(optimizer, named, method, start, stop):
        for _ in range(2):
            optimizer.step()
    return max(peaks) - at_rest
