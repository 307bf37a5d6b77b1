"""What a plan's schedule does to scale-invariant weights, before anything is trained.

Nothing but hyperparameters goes in: Δ* and τ of each learning-rate stage, and Δ/Δ* from
stage to stage by the relaxation law. What the gradients decide (equilibrium norms under
SGD, drift of the gradient's size, alignment) is not known to it.

Sources: Wan et al., *Spherical Motion Dynamics*, Theorems 1–3; Kosson et al., *Rotational
Equilibrium*; the other rules and the law through a whole schedule are derived.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...theory import NoPrediction, RotationalRule, UpdateRule, equilibrium_angle
from .findings import find_in_group, find_in_plan
from .law import TOLERANCE, Relaxation, relax, relaxation_times_needed
from .plan import Layers, Plan, WeightGroup
from .stages import Span, split_stages

FORGOTTEN = 1.0
"""Relaxation times after which Δ/Δ* is given although the initial norm is not known."""


@dataclass(frozen=True)
class Stage:
    """One stage of the learning rate; NaN is None here, so that it goes into JSON.

    Attributes:
        name: ``"warmup"`` for a rising start, else a number from ``"1"`` on.
        kind: ``"constant"``, ``"rising"`` or ``"falling"``.
        first_step, last_step: Optimizer steps, from 0, both in the stage.
        first_epoch, last_epoch: Epochs at its beginning and end; None where the length of an
            epoch is not known.
        lr: Learning rate at the stage's first, middle and last step.
        equilibrium_angle: Δ* there, radians per step.
        ratio: Δ/Δ* there; None less than :data:`FORGOTTEN` τ after an unknown start.
        relaxation_steps: τ there; None where nothing relaxes.
        relaxation_epochs: The same in epochs.
        length: The stage's length in relaxation times.
        ends_in_equilibrium: Whether Δ/Δ* is within 5 % of 1 at the last step; None where that
            is not known.
        within_tolerance_step: First step from which it is, to the end of the stage; None if it
            ends elsewhere, or from where on is not known.
        leaves_tolerance_step: First step from which it is not, to the end of the stage, after
            having been; None if there is no such step.
        steps_needed: Steps at this learning rate until it is, however long the stage; None
            along a ramp, and where not known.
        rescaled_ratio: Δ/Δ* at the last step under EquilibriumRescaleHook.
        forgotten: Relaxation times passed since the first step of training.
    """

    name: str
    kind: str
    first_step: int
    last_step: int
    first_epoch: float | None
    last_epoch: float | None
    lr: tuple[float, ...]
    equilibrium_angle: tuple[float | None, ...]
    ratio: tuple[float | None, ...]
    relaxation_steps: tuple[float | None, ...]
    relaxation_epochs: tuple[float | None, ...]
    length: float | None
    ends_in_equilibrium: bool | None
    within_tolerance_step: int | None
    leaves_tolerance_step: int | None
    steps_needed: float | None
    rescaled_ratio: float | None
    forgotten: float | None


@dataclass(frozen=True)
class GroupForecast:
    """What happens to the weights of one update rule.

    Attributes:
        rule: The update rule at its highest learning rate, None where it is not known.
        weights: Number of its weight matrices.
        stages: Its stages; empty where there is no prediction.
        no_prediction: In words, why.
        findings: What to know, in plain words.
    """

    rule: UpdateRule | None
    weights: int
    stages: tuple[Stage, ...]
    no_prediction: str
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Forecast:
    """A forecast; ``print`` shows it, :meth:`to_json` hands it on.

    Attributes:
        name, optimizer, steps, steps_per_epoch, layers: As in the plan.
        groups: One forecast per update rule, the largest group of weights first.
        findings: What holds for the whole run, in plain words.
    """

    name: str
    optimizer: str
    steps: int
    steps_per_epoch: float | None
    layers: Layers
    groups: tuple[GroupForecast, ...]
    findings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict: numbers, words, None, and names of layers."""
        record = asdict(self)
        for group, entry in zip(self.groups, record["groups"], strict=True):
            entry["rule"] = None if group.rule is None else group.rule.to_json()
        record["layers"]["verdict"] = self.layers.verdict
        record["layers"]["matrices"] = self.layers.matrices
        return record

    def __str__(self) -> str:
        from .text import render  # it lays out this file's classes

        return render(self)


def forecast_plan(plan: Plan) -> Forecast:
    """Work out what a plan will do.

    Args:
        plan: The plan; :func:`smd_hooks.planning.read_plan` reads it off a config.

    Returns:
        The forecast. A group that theory has nothing to say about says why, and has no
        stages.
    """
    return Forecast(
        name=plan.name,
        optimizer=plan.optimizer,
        steps=plan.steps,
        steps_per_epoch=plan.steps_per_epoch,
        layers=plan.layers,
        groups=tuple(_forecast_group(plan, group) for group in plan.groups),
        findings=find_in_plan(plan),
    )


def _forecast_group(plan: Plan, group: WeightGroup) -> GroupForecast:
    rule, lr = group.rule, group.lr
    if isinstance(rule, str):
        return GroupForecast(None, len(group.weights), (), rule, ())
    rule = rule.at(float(lr.max()), rule.weight_decay)
    changes = np.append(True, lr[1:] != lr[:-1])
    starts, lr = plan.starts[changes], lr[changes]
    initial = 1.0 if group.initial_norm is None else group.initial_norm
    try:
        equilibrium_angle(rule)  # before relaxation: it says more plainly what is missing
        planned = relax(rule, starts, plan.steps, lr, initial, plan.rescaled)
        followed = relax(rule, starts, plan.steps, lr, initial, rescaled=True)
    except NoPrediction as reason:
        return GroupForecast(rule, len(group.weights), (), str(reason), ())
    bounds = np.append(starts, plan.steps)
    unknown = group.initial_norm is None and not isinstance(rule, RotationalRule)
    path = _Path(rule, bounds, lr, planned, followed, unknown, plan.steps_per_epoch)
    stages: list[Stage] = []
    for span in split_stages(starts, plan.steps, lr):
        number = len(stages) + 1 - sum(stage.name == "warmup" for stage in stages)
        is_warmup = span.kind == "rising" and not stages
        stages.append(path.stage("warmup" if is_warmup else str(number), span))
    findings = find_in_group(plan, group, rule, stages)
    return GroupForecast(rule, len(group.weights), tuple(stages), "", findings)


@dataclass(frozen=True)
class _Path:
    """A weight on its way through the schedule."""

    rule: UpdateRule
    bounds: np.ndarray
    lr: np.ndarray
    planned: Relaxation
    followed: Relaxation
    unknown_start: bool
    steps_per_epoch: float | None

    def stage(self, name: str, span: Span) -> Stage:
        """Sum up the stretches of one stage."""
        first, last = int(self.bounds[span.first]), int(self.bounds[span.last + 1]) - 1
        points = [first, (first + last) // 2, last]
        at = [self._stretch(step) for step in points]
        relaxes = not isinstance(self.rule, RotationalRule)
        taus = [float(self.planned.tau[i]) for i in at] if relaxes else []
        passed = self.planned.passed
        ratio = [self._ratio(self.planned, step) for step in points]
        enters, leaves = self._crossings(span)
        return Stage(
            name=name,
            kind=span.kind,
            first_step=first,
            last_step=last,
            first_epoch=self._epochs(first),
            last_epoch=self._epochs(last + 1),
            lr=tuple(float(self.lr[i]) for i in at),
            equilibrium_angle=tuple(self._angle(float(self.lr[i])) for i in at),
            ratio=tuple(ratio),
            relaxation_steps=tuple(_known(tau) for tau in taus),
            relaxation_epochs=tuple(
                self._epochs(tau) if math.isfinite(tau) else None for tau in taus
            ),
            length=float(passed[span.last + 1] - passed[span.first]) if relaxes else None,
            ends_in_equilibrium=None if ratio[2] is None else abs(ratio[2] - 1) <= TOLERANCE,
            within_tolerance_step=None if ratio[2] is None else enters,
            leaves_tolerance_step=None if ratio[2] is None else leaves,
            steps_needed=self._needed(span, ratio[0]) if relaxes else None,
            rescaled_ratio=self._ratio(self.followed, last),
            forgotten=float(passed[span.last + 1]) if relaxes else None,
        )

    def _stretch(self, step: float) -> int:
        return int(np.searchsorted(self.bounds, step, side="right")) - 1

    def _angle(self, lr: float) -> float | None:
        return equilibrium_angle(self.rule.at(lr, self.rule.weight_decay)) if lr > 0 else None

    def _epochs(self, steps: float) -> float | None:
        return None if self.steps_per_epoch is None else steps / self.steps_per_epoch

    def _ratio(self, way: Relaxation, step: int) -> float | None:
        """Δ/Δ* at a step; inside a stretch by the law at constant learning rate."""
        i = self._stretch(step)
        if isinstance(self.rule, RotationalRule):
            return _known(float(way.ratio_start[i]))
        since = (step - int(self.bounds[i])) / float(way.tau[i])
        if self.unknown_start and float(way.passed[i]) + since < FORGOTTEN:
            return None
        off = float(way.ratio_start[i]) ** -2 - 1
        return _known((1 + off * math.exp(-since)) ** -0.5)

    def _crossings(self, span: Span) -> tuple[int | None, int | None]:
        """Steps from which Δ/Δ* is for good within tolerance, or for good outside."""
        part = slice(span.first, span.last + 1)
        begins = np.abs(self.planned.ratio_start[part] - 1) <= TOLERANCE
        ends = np.abs(self.planned.ratio_end[part] - 1) <= TOLERANCE
        # within a stretch the ratio only approaches 1: it may enter there, but never leave
        if not ends[-1]:
            inside = np.flatnonzero(ends)
            return None, int(self.bounds[span.first + inside[-1] + 1]) if len(inside) else None
        outside = np.flatnonzero(~(begins & ends))
        if len(outside):
            i = span.first + int(outside[-1])
            if not ends[outside[-1]]:
                return int(self.bounds[i + 1]), None
            wait = relaxation_times_needed(float(self.planned.ratio_start[i]))
            return int(self.bounds[i]) + math.ceil(wait * float(self.planned.tau[i])), None
        if self.unknown_start and self.planned.passed[span.first] < FORGOTTEN:
            return None, None
        return int(self.bounds[span.first]), None

    def _needed(self, span: Span, ratio: float | None) -> float | None:
        if span.kind != "constant" or ratio is None:
            return None
        return relaxation_times_needed(ratio) * float(self.planned.tau[span.first])


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
