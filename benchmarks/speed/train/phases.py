"""Takes the time of each phase of a training step, in MMEngine's Runner or in a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from benchmarks.speed.stopwatch import Stopwatch
from benchmarks.speed.train.switch import Switch
from smd_hooks import StepProbe
from smd_hooks.hooks import SMDHook

Result = TypeVar("Result")

INPUT, FORWARD, BACKWARD, STEP = "input", "forward", "backward", "optimizer"
MEASURING, WRITING, REST = "measuring", "writing", "rest"
PHASES = (INPUT, FORWARD, BACKWARD, STEP, MEASURING, WRITING, REST)
WHOLE = "whole"
_ON_THE_HOST = (INPUT, WRITING)


class Phases:
    """One stopwatch per phase.

    Args:
        device: Where forward, backward and step are done; the host waits for the input, and
            writes.
    """

    def __init__(self, device: torch.device) -> None:
        host = torch.device("cpu")
        self._watches = {
            name: Stopwatch(host if name in _ON_THE_HOST else device)
            for name in (WHOLE, *PHASES)
            if name != REST
        }

    def mark(self, phase: str) -> None:
        """Begin a phase, or end it."""
        self._watches[phase].mark()

    def around(self, phase: str, function: Callable[..., Result]) -> Callable[..., Result]:
        """Return the function, timed as this phase."""

        def timed(*args: Any, **kwargs: Any) -> Result:
            self.mark(phase)
            try:
                return function(*args, **kwargs)
            finally:
                self.mark(phase)

        return timed

    def read(self) -> dict[str, float]:
        """Return the seconds of each phase and of the whole since the last reading.

        What the probe takes is within the optimizer's step; it is taken off that. The rest is
        what no phase covers. Waits for the device.
        """
        read = {name: watch.read() for name, watch in self._watches.items()}
        read[STEP] -= read[MEASURING]
        read[REST] = read[WHOLE] - sum(read[name] for name in PHASES if name != REST)
        return read


class FirstHook(Hook):
    """Before all other hooks: the probe's measuring begins, and the input has come.

    Args:
        phases: The stopwatches.
        switch: Put over all that measures.
    """

    priority = "HIGHEST"

    def __init__(self, phases: Phases, switch: Switch) -> None:
        self._phases, self._switch = phases, switch

    def before_train(self, runner: Runner) -> None:
        """Time what is called once per step."""
        phases, wrapper, model = self._phases, runner.optim_wrapper, runner.model
        preprocessor = model.data_preprocessor
        preprocessor.forward = phases.around(INPUT, preprocessor.forward)
        model.forward = phases.around(FORWARD, model.forward)
        wrapper.backward = phases.around(BACKWARD, wrapper.backward)
        wrapper.step = phases.around(STEP, wrapper.step)
        for hook in runner.hooks:
            if isinstance(hook, SMDHook):
                timed = phases.around(WRITING, hook.after_train_iter)
                hook.after_train_iter = timed  # type: ignore[method-assign]
            if isinstance(hook, SMDHook | Probes):
                self._switch.over_hook(hook)
        self._switch.over_steps(wrapper.optimizer)
        mark_measuring(wrapper.optimizer, phases)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """The batch is there."""
        self._phases.mark(INPUT)


class Probes(Hook):
    """Measures each step several times over; keeps nothing.

    Args:
        count: How many times.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def before_train(self, runner: Runner) -> None:
        """Attach them."""
        named = list(runner.model.named_parameters())
        optimizer = runner.optim_wrapper.optimizer
        self._probes = [StepProbe(optimizer, named) for _ in range(self._count)]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Forget what was measured."""
        for probe in self._probes:
            probe.drain()


class LastHook(Hook):
    """After all other hooks: hands over to the other lanes, and goes on when it is its turn.

    Args:
        phases: The stopwatches.
        hand_over: Told the seconds of each phase; returns when it is this lane's turn again.
        steps: Steps per turn.
    """

    priority = "LOWEST"

    def __init__(
        self, phases: Phases, hand_over: Callable[[dict[str, float]], None], steps: int
    ) -> None:
        self._phases, self._hand_over, self._steps = phases, hand_over, steps

    def before_train(self, runner: Runner) -> None:
        """Wait for the first turn."""
        mark_measuring(runner.optim_wrapper.optimizer, self._phases)
        self._done = 0
        self._hand_over({})
        self._phases.mark(WHOLE)
        self._phases.mark(INPUT)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """End the step, and after so many of them the turn."""
        self._done += 1
        if self._done % self._steps == 0:
            self._phases.mark(WHOLE)
            self._hand_over(self._phases.read())
            self._phases.mark(WHOLE)
        self._phases.mark(INPUT)


def mark_measuring(optimizer: torch.optim.Optimizer, phases: Phases) -> None:
    """Mark on both sides of the step: once before the probe hooks onto it, and once after."""

    def mark(*_: Any) -> None:
        phases.mark(MEASURING)

    optimizer.register_step_pre_hook(mark)
    optimizer.register_step_post_hook(mark)
