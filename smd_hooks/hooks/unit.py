"""What ``run.json`` says of one weight or joint group that is measured."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..measure.invariance import Verdict
from ..measure.joint_groups import JointGroup
from ..measure.precision import rounding_angle
from ..measure.probe import StepProbe
from ..theory import NoPrediction, UpdateRule

WINDOW = 25
"""Samples that the console's ratio is taken over (theory fixes E Δ², not each Δ)."""


@dataclass
class Unit:
    """What one entry of ``run.json`` says of a weight or joint group that is measured.

    Attributes:
        probe: Who measures it.
        index: Its index there.
        optimizer: Name of its optimizer.
        first_step: Steps of that optimizer before this launch.
        rule: Its update rule, with its first lr and decay, or in words why there is none.
        verdict: The newest one.
        changes: History of the verdict: from which step on it is scale-invariant, or not.
        window: (Δ/Δ*)² of the last samples.
    """

    probe: StepProbe
    index: int
    optimizer: str
    first_step: int
    rule: UpdateRule | str = ""
    verdict: Verdict | JointGroup | None = None
    changes: list[tuple[int, bool | None]] = field(default_factory=list)
    window: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    @property
    def name(self) -> str:
        """Its parameter's name, or its members' joined."""
        return self.probe.names[self.index]

    @property
    def members(self) -> tuple[int, ...]:
        """Indices of the weights it consists of."""
        return self.probe.groups.get(self.index, (self.index,))

    @property
    def is_alone(self) -> bool:
        """Whether it is a single weight."""
        return self.index not in self.probe.groups

    def weights(self) -> list[Tensor]:
        """Return the parameters it consists of."""
        return [self.probe.weight(i) for i in self.members]

    @property
    def is_invariant(self) -> bool:
        """Whether it is scale-invariant, as far as is known now."""
        return bool(self.changes) and self.changes[-1][1] is True

    def may_have_filters(self) -> bool:
        """Whether its filters are units of their own, or nobody knows yet."""
        return not isinstance(self.verdict, Verdict) or self.verdict.per_filter is True

    def judge(self, verdict: Verdict | JointGroup | None, from_step: int) -> None:
        """Take a new verdict, None where a joint group was not found again."""
        # a joint group that is found no more is none any more
        alone = isinstance(verdict, Verdict)
        invariant = verdict.scale_invariant if alone else verdict is not None  # type: ignore[union-attr]
        self.verdict = verdict or self.verdict
        if not self.changes or self.changes[-1][1] != invariant:
            self.changes.append((from_step, invariant))

    def read_rule(self) -> None:
        """Read the update rule again; one that is scheduled predicts nothing."""
        try:
            groups = [self.probe.param_group(i) for i in self.members]
            rules = [UpdateRule.from_optimizer(self.probe.optimizer, g) for g in groups]
        except NoPrediction as reason:
            self.rule = str(reason)
            return
        if len(set(rules)) > 1:
            self.rule = "no prediction: its members differ in learning rate or weight decay"
        elif isinstance(self.rule, UpdateRule) and self.rule.constants != rules[0].constants:
            was, now = dict(self.rule.constants), dict(rules[0].constants)
            changed = [f"{k} from {was.get(k)} to {v}" for k, v in now.items() if was.get(k) != v]
            self.rule = f"no prediction: changed during training: {', '.join(changed)}"
        elif self.rule == "":  # lr and decay stay those of the first step
            self.rule = rules[0]

    def memory(self) -> dict[str, Any]:
        """Return what a resumed run cannot find out again."""
        rule = self.rule.to_json() if isinstance(self.rule, UpdateRule) else self.rule
        return {"rule": rule, "changes": [list(change) for change in self.changes]}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Go on from what :meth:`memory` returned; a rule that has changed predicts nothing."""
        self.changes = [(step, invariant) for step, invariant in memory["changes"]]
        rule = memory["rule"]
        with suppress(NoPrediction):  # a later version may know more rules
            self.rule = rule if isinstance(rule, str) else UpdateRule.from_json(rule)
        self.read_rule()

    def to_json(self) -> dict[str, Any]:
        """Return its entry."""
        verdict = {} if self.verdict is None else self.verdict.to_json()
        known = isinstance(self.rule, UpdateRule)
        weights = self.weights()
        return {
            "shape": [sum(w.numel() for w in weights)],  # a weight's verdict knows better
            **verdict,
            "parameter": self.name,
            "measured": True,
            "optimizer": self.optimizer,
            "first_step": self.first_step,
            "rule": self.rule.to_json() if isinstance(self.rule, UpdateRule) else None,
            "no_prediction": "" if known else self.rule,
            "rounding_angle": max(rounding_angle(w.dtype) for w in weights),
            "changes": self.changes,
            **({"scale_invariant": self.changes[-1][1]} if self.changes else {}),
        }
