"""What a forecast amounts to, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...theory import (
    AdamRule,
    LionRule,
    NoPrediction,
    RotationalRule,
    SGDRule,
    UpdateRule,
    decay_factor,
    equilibrium_angle,
    inverse_bias_factor,
    relaxation_time,
)
from ...theory.assumptions import SHORT_MEMORY
from .law import TOLERANCE, forgotten_norms
from .plan import Plan, WeightGroup

if TYPE_CHECKING:
    from .forecast import Stage

NAMES = 4
"""Names that a line holds; the others are counted."""
REASONS = 4
"""Reasons that have a line of their own."""


def find_in_plan(plan: Plan) -> tuple[str, ...]:
    """Say what holds for the whole run: scale invariance, clipping, what was assumed."""
    found = _layers(plan)
    if plan.clipped_to is not None and any(isinstance(g.rule, SGDRule) for g in plan.groups):
        found.append(
            f"gradients are clipped to norm {plan.clipped_to:g}: the ratios below hold where that "
            "is rare; where every step is clipped, weights relax half as fast, to the same Δ*"
        )
    return (*found, *plan.notes)


def _layers(plan: Plan) -> list[str]:
    layers, found = plan.layers, []
    if layers.verdict == "some":
        found.append(
            f"{len(layers.invariant)} of {layers.matrices} weight matrices are scale-invariant"
        )
    elif layers.verdict == "none":
        kinds = {type(group.rule) for group in plan.groups}
        meaning = (
            "what the optimizer turns by a set angle need not be"
            if kinds == {RotationalRule}
            else "the stages below say what a scale-invariant weight would do, and no layer here "
            "is one"
        )
        found.append(
            f"nothing is scale-invariant, none of {layers.matrices} weight matrices: {meaning}"
        )
    elif layers.matrices:
        found.append(f"none of {layers.matrices} weight matrices is known to be scale-invariant")
    found += _by_reason("not scale-invariant", layers.others)
    found += _by_reason("cannot tell", layers.unknown)
    return [*found, layers.note] if layers.note else found


def _by_reason(what: str, reasons: Mapping[str, Sequence[str]]) -> list[str]:
    """One line a reason, those with the most weights first."""
    largest = sorted(reasons.items(), key=lambda item: -len(item[1]))
    found = [f"{what}, {why} ({len(names)}): {_some(names)}" for why, names in largest[:REASONS]]
    rest = sum(len(names) for _, names in largest[REASONS:])
    return [*found, f"{what}, for other reasons: {rest}"] if rest else found


def _some(names: Sequence[str]) -> str:
    told = ", ".join(name.removesuffix(".weight") for name in names[:NAMES])
    rest = len(names) - NAMES
    return f"{told} and {rest} more" if rest > 0 else told


def find_in_group(
    plan: Plan, group: WeightGroup, rule: UpdateRule, stages: Sequence[Stage]
) -> tuple[str, ...]:
    """Say what the weights of one rule go through; if none is scale-invariant, how they begin.

    Args:
        plan: The plan.
        group: The weights.
        rule: Their rule at its highest learning rate.
        stages: Their stages.
    """
    if plan.layers.verdict == "none":
        known = not isinstance(rule, SGDRule)  # by SGD's, nothing is
        return tuple(_first_step(group, rule, stages)) if known else ()
    if isinstance(rule, RotationalRule):
        found = ["weights turn by the set angle from the first step on: nothing has to relax"]
        return (*found, *_first_step(group, rule, stages))
    return (
        *_oscillation(rule),
        *_memory(rule),
        *_alignment(rule),
        *_start(group, rule, stages),
        *_ends(plan, stages),
        *_first_step(group, rule, stages),
    )


def _ends(plan: Plan, stages: Sequence[Stage]) -> list[str]:
    """Which stages end out of equilibrium, what each would need, what rescaling would do."""
    stages = [stage for stage in stages if stage.name != "warmup"]
    off = [s for s in stages if s.ends_in_equilibrium is False and s.leaves_tolerance_step is None]
    left = [s for s in stages if s.leaves_tolerance_step is not None]
    found = []
    if off:
        ratios = [stage.ratio[-1] or 0.0 for stage in off]
        found.append(
            f"{_named(off)} {'ends' if len(off) == 1 else 'end'} at {_percent(ratios)} of "
            f"equilibrium: layers turn too {_speed(ratios)} there"
        )
    elif stages and all(stage.ends_in_equilibrium for stage in stages):
        found.append("every stage ends within 5 % of equilibrium")
    for stage in left:
        step = stage.leaves_tolerance_step or 0
        at = f"step {step:,}"
        if plan.steps_per_epoch is not None:
            at += f" (epoch {step / plan.steps_per_epoch:.4g})"
        found.append(
            f"{_named([stage])} falls out of equilibrium from {at} on, and ends at "
            f"{_percent([stage.ratio[-1] or 0.0])}"
        )
    for stage in stages:
        found += [] if stage in left else _time_needed(stage)
    if plan.rescaled:
        return [*found, "EquilibriumRescaleHook keeps weights in equilibrium as the lr falls"]
    gained = [
        s
        for s in off + left
        if s.rescaled_ratio is not None
        and abs(s.rescaled_ratio - 1) + TOLERANCE < abs((s.ratio[-1] or 0) - 1)
    ]
    if gained:
        shares = _percent([stage.rescaled_ratio or 0.0 for stage in gained])
        found.append(f"with EquilibriumRescaleHook {_named(gained)} would end at {shares}")
    return found


def _time_needed(stage: Stage) -> list[str]:
    tau = stage.relaxation_steps[-1] if stage.relaxation_steps else None
    if not stage.steps_needed or not tau:
        return []
    needed = f"{stage.steps_needed / tau:.1f} τ = {stage.steps_needed:,.0f} steps"
    if stage.first_epoch is not None and stage.relaxation_epochs[-1] is not None:
        needed += f" = {stage.steps_needed / tau * stage.relaxation_epochs[-1]:.1f} epochs"
    length = stage.last_step + 1 - stage.first_step
    verb = "takes" if stage.ends_in_equilibrium else "would need"
    return [f"{_named([stage])} {verb} {needed} to be within 5 %, and has {length:,} steps"]


def _start(group: WeightGroup, rule: UpdateRule, stages: Sequence[Stage]) -> list[str]:
    """How much the initial norm matters, and until when."""
    if group.initial_norm is not None:
        return [
            f"weights begin at {group.initial_norm:.2g} × the equilibrium norm of the highest lr "
            "(median over layers, from their initialisation)"
        ]
    in_all = stages[-1].forgotten or 0.0
    if in_all < 1:
        return [
            f"the whole run lasts {in_all:.2g} τ: weights never forget their initial norm, and "
            "Δ/Δ* is not known from a config"
        ]
    first = next(stage for stage in stages if stage.name != "warmup" or len(stages) == 1)
    assumed = "the initial norm is not known, and the ratios hold for a start at equilibrium"
    if first.kind != "constant" or not first.ends_in_equilibrium or first.forgotten is None:
        return [assumed]
    smallest, largest = forgotten_norms(rule, first.forgotten)
    if largest > 100:
        return []
    bounds = f"between {smallest:.2g} and" if smallest else "below"
    return [
        f"{assumed}: stage {first.name} ends within 5 % if weights begin {bounds} {largest:.1f} × "
        "their equilibrium norm"
    ]


def _oscillation(rule: UpdateRule) -> list[str]:
    try:
        decay_factor(rule)
    except NoPrediction as reason:
        if isinstance(rule, SGDRule):
            product, limit = rule.lr * rule.weight_decay, (1 - math.sqrt(rule.momentum)) ** 2
            return [f"{reason} (lr · weight_decay = {product:.2g}, (1 − √momentum)² = {limit:.2g})"]
    return []


def _memory(rule: UpdateRule) -> list[str]:
    if not isinstance(rule, AdamRule | LionRule):
        return []
    share = 1 / ((1 - rule.beta2) * relaxation_time(rule))
    if share <= SHORT_MEMORY:
        return []
    return [
        f"beta2 lets the optimizer remember {share:.2g} relaxation times: gradients from before "
        "the weight turned, and Δ* is less certain"
    ]


def _alignment(rule: UpdateRule) -> list[str]:
    if isinstance(rule, LionRule) or (isinstance(rule, SGDRule) and rule.nesterov):
        kind = "a sign rule" if isinstance(rule, LionRule) else "Nesterov momentum"
        return [f"under {kind} Δ* holds where gradients neither follow nor oppose the momentum"]
    return []


def _first_step(group: WeightGroup, rule: UpdateRule, stages: Sequence[Stage]) -> list[str]:
    """The warmup question: how large the very first update is beside one in equilibrium."""
    target = equilibrium_angle(rule)
    scale = float(group.lr[0]) / rule.lr
    warms = stages[0].name == "warmup"
    if isinstance(rule, RotationalRule):
        if not rule.corrected_beta:
            return []
        share = inverse_bias_factor(rule.corrected_beta, 1, rule.nesterov)
        return [f"inverse bias correction: the first step turns by {share:.2g} of the set angle"]
    if isinstance(rule, SGDRule):
        return [
            "the first update's size depends on the first gradients under SGD: whether it exceeds "
            "the equilibrium's is not known from a config"
        ]
    if group.initial_rms is None:
        why = group.initial_unknown or "the weights' initial scale is not known"
        return [f"the first update beside the equilibrium's: {why}"]
    # the first direction of Adam is a sign as well: m̂/√v̂ = ±1
    step = rule.lr / group.initial_rms * (rule.scale if isinstance(rule, LionRule) else 1.0)
    text = (
        f"at the highest lr the first update would be {step:.2g} of the weights' norm, "
        f"{step / target:.2g} × the equilibrium's {target:.2g}"
    )
    if warms:
        text += f"; the warmup begins at {scale:.2g} of that"
    elif step > target * (1 + TOLERANCE):
        text += ", and there is no warmup to make it smaller"
    return [text]


def _named(stages: Sequence[Stage]) -> str:
    """``stage 2``, ``stages 3 and 4``."""
    return f"stage{'s' if len(stages) > 1 else ''} {_listed([stage.name for stage in stages])}"


def _percent(ratios: Sequence[float]) -> str:
    """``100 %``, ``37 % and 12 %``; once if all are alike."""
    shares = [f"{100 * r:.0f} %" if r >= 0.01 or r == 0 else "under 1 %" for r in ratios]
    return _listed(shares[:1] if len(set(shares)) == 1 else shares)


def _speed(ratios: Sequence[float]) -> str:
    slow, fast = any(r < 1 for r in ratios), any(r > 1 for r in ratios)
    return "slowly or too fast" if slow and fast else "slowly" if slow else "fast"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
