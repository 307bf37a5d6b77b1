"""Keeps the verdicts true for a whole training: looks again when a module changes mode.

A backbone whose BatchNorm goes to eval mode mid-run, a layer that is frozen or handed
to the optimizer later: what was scale-invariant is so no more, or the reverse.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from .invariance import ScaleInvarianceObserver
from .joint_groups import JointGroup
from .stepping import AroundStep
from .verdict import Verdict

REPEAT = 4
"""What is unsettled is looked at again at 4, 16, 64, … times the first observation's length."""


@dataclass(frozen=True)
class Findings:
    """What one observation found.

    Attributes:
        from_steps: For each optimizer, its own step from which on it holds: the first in
            the observed mode, or of a later look.
        verdicts: One per parameter of the model.
        groups: The weights that are scale-invariant only together.
    """

    from_steps: tuple[int, ...]
    verdicts: list[Verdict]
    groups: list[JointGroup]

    @property
    def from_step(self) -> int:
        """The same for a model with one optimizer, or of the first one."""
        return self.from_steps[0]

    def same_as(self, other: Findings) -> bool:
        """Whether both say the same, whatever the statistics they rest on."""
        return self._said() == other._said()

    def _said(self) -> Any:
        verdicts = [
            (v.parameter, v.scale_invariant, v.per_filter, v.norms, v.reason) for v in self.verdicts
        ]
        return verdicts, [(group.members, group.norms) for group in self.groups]


class InvarianceWatch:
    """Finds the scale-invariant weights, and again whenever the answer may have changed.

    After each optimizer step it compares the ``training`` flag of every module, and
    which and how many parameters that optimizer trains, with those after the optimizer's
    last step. What differs in two steps in a row begins a new observation; so a flag
    that flips at every step begins none. Weights that have no gradient yet, or are small
    against their norm's eps, are looked at again later.

    Args:
        model: The model that is trained, unwrapped (no DDP).
        optimizers: Its optimizer, or all of them.
        first_step: Number of optimizer steps taken before this run was resumed; for several
            optimizers that of each.

    Example::

        watch = InvarianceWatch(model, optimizer)
        for batch in loader:
            ...  # a training step
            findings = watch.poll()
            if findings is not None:
                print(findings.from_step, findings.verdicts)
        watch.detach()
        while (findings := watch.poll(final=True)) is not None:
            print(findings.from_step, findings.verdicts)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Optimizer | Sequence[Optimizer],
        first_step: int | Sequence[int] = 0,
    ) -> None:
        self.model = model
        self._optimizers = [optimizers] if isinstance(optimizers, Optimizer) else list(optimizers)
        if isinstance(first_step, int):
            first_step = [first_step] * len(self._optimizers)
        self._steps_of = dict(zip(self._optimizers, first_step, strict=True))
        self._modules = list(model.modules())
        # by optimizer, since GANs switch requires_grad between their optimizers' steps
        self._signatures: dict[Optimizer, tuple[list[bool], list[bool]]] = {}
        self._differs_since: dict[Optimizer, tuple[int, ...]] = {}
        self._finished: deque[tuple[tuple[int, ...], ScaleInvarianceObserver]] = deque()
        self._last: Findings | None = None
        self._begin_mode(self._all_steps())
        # after the step, because there the hooks that run before it may be added and removed
        self._handles = [AroundStep(o, after=self._after_step) for o in self._optimizers]

    @property
    def step(self) -> int:
        """Optimizer steps taken, those before a resume included.

        Of several optimizers, those of the one that has stepped most often.
        """
        return max(self._steps_of.values())

    @property
    def findings(self) -> Findings | None:
        """What :meth:`poll` returned last."""
        return self._last

    def _all_steps(self) -> tuple[int, ...]:
        return tuple(self._steps_of.values())

    def detach(self) -> None:
        """Remove all hooks; :meth:`poll` still gives what was found."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._observer is not None:
            self._observer.detach()

    def poll(self, final: bool = False) -> Findings | None:
        """Return what a finished observation found, if it says anything new.

        To be called between two steps, not between forward and backward.

        Args:
            final: Also take what a running observation has seen so far, and end it: for
                the end of training. Ask until None comes back.
        """
        if final:
            self._end_observation()
        while self._finished:
            from_steps, observer = self._finished.popleft()
            findings = Findings(from_steps, observer.verdicts(), observer.groups())
            if self._observer is None and not all(v.settled for v in findings.verdicts):
                self._plan_next_look(observer.steps // len(self._optimizers))
            if self._last is None or not findings.same_as(self._last):
                self._last = findings
                return findings
        return None

    # ----------------------------------------------------------------------- watching

    def _signature(self, optimizer: Optimizer) -> tuple[list[bool], list[bool]]:
        """What decides which weights are trained, and how their outputs are normalized."""
        held = [p.requires_grad for group in optimizer.param_groups for p in group["params"]]
        return [module.training for module in self._modules], held

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        steps = self._all_steps()
        self._steps_of[optimizer] += 1
        signature = self._signature(optimizer)
        if signature == self._signatures.setdefault(optimizer, signature):
            self._differs_since.pop(optimizer, None)
        elif optimizer not in self._differs_since:
            self._differs_since[optimizer] = steps
        else:
            self._signatures[optimizer] = signature
            # the modules' modes are everybody's: no other optimizer needs to notice them again
            for other, (_, held) in self._signatures.items():
                self._signatures[other] = signature[0], held
            if self._observer is not None:
                self._observer.detach()
            self._begin_mode(self._differs_since.pop(optimizer))
            return
        if self._observer is not None and self._observer.done:
            self._end_observation()
        elif self._next_look is not None and self.step >= self._next_look:
            self._observe(self._all_steps())

    def _begin_mode(self, from_steps: tuple[int, ...]) -> None:
        self._mode_since = max(from_steps)
        self._length: int | None = None
        self._observe(from_steps)

    def _observe(self, from_steps: tuple[int, ...]) -> None:
        self._next_look: int | None = None
        self._from_steps = from_steps
        self._observer: ScaleInvarianceObserver | None = ScaleInvarianceObserver(
            self.model, self._optimizers
        )

    def _end_observation(self) -> None:
        if self._observer is None:
            return
        self._observer.detach()
        if self._observer.steps:  # a launch that took no step knows nothing new
            self._finished.append((self._from_steps, self._observer))
        self._observer = None

    def _plan_next_look(self, length: int) -> None:
        self._length = self._length or max(length, 1)
        wait = self._length * REPEAT
        while self._mode_since + wait <= self.step:
            wait *= REPEAT
        self._next_look = self._mode_since + wait
