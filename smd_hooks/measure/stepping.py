"""When an optimizer steps, and how it was called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch.optim import Optimizer

# what torch puts around every optimizer's step, to call hooks
_STEP = Optimizer.profile_hook_step(lambda self: None).__code__

StepHook = Callable[[Optimizer, tuple[Any, ...], dict[str, Any]], Any]


class AroundStep:
    """Calls back before and after each step of an optimizer, once per step.

    torch calls step hooks twice where a subclass's ``step`` calls that of its base: the
    outer call is the step. Callbacks are kept out of ``torch.compile``'s graphs.

    Args:
        optimizer: The optimizer.
        before: Called with the optimizer, args and kwargs; what it returns replaces
            (args, kwargs), unless it is None.
        after: Called likewise, after the step.
    """

    def __init__(
        self, optimizer: Optimizer, before: StepHook | None = None, after: StepHook | None = None
    ) -> None:
        self._before, self._after = before, after
        self._step: FrameType | None = None
        self._handles = []
        # callbacks may themselves watch or unwatch what is not called back here
        if before is not None or after is not None:
            enter = torch.compiler.disable(self._enter)
            self._handles.append(optimizer.register_step_pre_hook(enter))
        if after is not None:
            leave = torch.compiler.disable(self._leave)
            self._handles.append(optimizer.register_step_post_hook(leave))

    def remove(self) -> None:
        """Call back no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._step = None

    def end_first(self, optimizer: Optimizer) -> None:
        """Call back after steps before everybody else does; not to be called after a step."""
        hooks, own = optimizer._optimizer_step_post_hooks, self._handles[-1].id
        if next(iter(hooks)) != own:
            for key in [key for key in hooks if key != own]:
                hooks[key] = hooks.pop(key)

    def _enter(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        if self._step is not None and self._step in _callers():
            return None
        self._step = _calling_step()
        return self._before(optimizer, args, kwargs) if self._before is not None else None

    def _leave(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if _calling_step() is self._step:
            self._step = None
            assert self._after is not None
            self._after(optimizer, args, kwargs)


@dataclass(frozen=True)
class _InnerCall:
    """A closure that makes no gradients."""

    call: Callable[[], None]

    def __call__(self) -> None:
        with torch.no_grad():
            self.call()


class InsideStep:
    """Calls back inside each step of an optimizer, where no other hook looks.

    That is after all hooks before the step and the closure, and again before all hooks
    after it, whoever was registered first.

    Args:
        optimizer: One whose ``step`` takes a closure and calls it before anything else.
        begin: Called once gradients are there.
        end: Called once weights have moved.
    """

    def __init__(
        self, optimizer: Optimizer, begin: Callable[[], None], end: Callable[[], None]
    ) -> None:
        self._begin, self._end = begin, end
        self._around = AroundStep(optimizer, self._before_step, self._after_step)

    def remove(self) -> None:
        """Call back no more."""
        self._around.remove()

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        self._around.end_first(optimizer)
        closure, begin = closure_of(args, kwargs), _InnerCall(self._begin)
        if closure is None:
            return with_closure(begin, args, kwargs)

        def evaluate_and_begin() -> Any:
            loss = closure()
            begin()
            return loss

        return with_closure(evaluate_and_begin, args, kwargs)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._end()


def _callers() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _calling_step() -> FrameType | None:
    """The call of the optimizer's step that calls the hooks; None inside compiled code."""
    return next((frame for frame in _callers() if frame.f_code is _STEP), None)


def check_interval(who: str, interval: object) -> None:
    """Raise ValueError, in one line, unless an interval is a whole number of 1 or more."""
    if not isinstance(interval, int) or isinstance(interval, bool) or interval < 1:
        raise ValueError(f"{who}: interval must be a whole number of 1 or more, got {interval!r}")


def closure_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Callable[[], Any] | None:
    """Return the closure that ``optimizer.step`` was called with, from a step hook's arguments.

    Args:
        args: Positional arguments, the optimizer itself first.
        kwargs: Keyword arguments.

    Returns:
        What makes this step's gradients; None where they are there already.
    """
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    return closure if callable(closure) and not isinstance(closure, _InnerCall) else None


def with_closure(
    closure: Callable[[], Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of ``optimizer.step`` with another closure in its place."""
    if len(args) > 1:
        return (args[0], closure, *args[2:]), dict(kwargs)
    return args, {**kwargs, "closure": closure}
