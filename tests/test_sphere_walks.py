"""Real optimizers on scale-invariant weights under random gradients, seen by the real probe.

Nothing here knows the theory: a gradient is white noise, tangential to the weight and
inversely proportional to its norm, as scale invariance makes it. What the probe reports in
the stationary state is then held against the closed forms. Every walk prints its figures
(``pytest -s``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lion_pytorch import Lion
from timm.optim.sgdw import SGDW
from torch import Tensor

from smd_hooks import StepProbe
from smd_hooks.analysis import predict, score
from smd_hooks.analysis.diagnosis.diagnose import ALIGNED, RELAXING, diagnose
from smd_hooks.theory import (
    AdamRule,
    LionRule,
    SGDRule,
    StepMoments,
    UpdateRule,
    driving_moment,
    equilibrium_angle,
    equilibrium_norm,
)
from tests.analysis.work_dirs import weight

VECTORS, SHAPE = 32, (16, 24)
ELEMENTS = SHAPE[0] * SHAPE[1]
MEASURED = 200
"""Optimizer steps measured at the end of a walk."""
START = 1.1
"""‖w‖/r* at the start: a walk that did not relax to r* misses every bound on the norm."""


@dataclass(frozen=True)
class Case:
    """An optimizer, and how far its first-order forms may be off.

    Attributes:
        build: From parameters to the optimizer.
        relax: Steps before measuring: four relaxation times and more.
        angle: Relative bound on the RMS angle.
        norm: Relative bound on the mean norm.
    """

    build: Callable[[list[Tensor]], torch.optim.Optimizer]
    relax: int
    angle: float
    norm: float = 0.02


def sgd(momentum: float, weight_decay: float = 0.005, **settings: Any) -> Case:
    settings |= {"lr": 0.1, "momentum": momentum, "weight_decay": weight_decay}
    return Case(lambda weights: torch.optim.SGD(weights, **settings), 250, angle=0.01)


def lion(beta1: float, beta2: float, decay: float, relax: int, norm: float = 0.02) -> Case:
    settings: dict[str, Any] = {"lr": 0.02, "weight_decay": decay / 0.02, "betas": (beta1, beta2)}
    return Case(lambda weights: Lion(weights, **settings), relax, angle=0.02, norm=norm)


def adam(kind: type[torch.optim.Adam], lr: float, weight_decay: float) -> Case:
    # a second moment over 100 steps: long for the momentum, short for the norm
    settings: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "betas": (0.9, 0.99)}
    return Case(lambda weights: kind(weights, eps=1e-12, **settings), 1_200, angle=0.02)


CASES = {
    "SGD": sgd(0.0, weight_decay=0.05),
    "SGD, heavy ball": sgd(0.9),
    "SGD, heavy ball, dampened": sgd(0.9, weight_decay=0.01, dampening=0.5),
    "SGD, Nesterov": sgd(0.9, nesterov=True),
    "SGDW": Case(lambda w: SGDW(w, lr=0.1, momentum=0.9, weight_decay=0.01), 1_000, angle=0.01),
    "AdamW": adam(torch.optim.AdamW, 0.02, 0.1),
    "Adam with L2": adam(torch.optim.Adam, 0.01, 0.003),
    "Lion": lion(0.9, 0.99, decay=3e-4, relax=5_500, norm=0.04),
    "sign of a running mean": lion(0.9, 0.9, decay=1e-3, relax=1_700),
    "sign of a running mean, Nesterov": lion(0.81, 0.9, decay=1e-3, relax=1_700),
}


@dataclass(frozen=True)
class Walk:
    """What a walk left: its rule, and one row per measured step and weight."""

    rule: UpdateRule
    frame: pd.DataFrame

    @property
    def angle(self) -> float:
        """RMS angular update, radians: theory fixes E Δ²."""
        return float(np.sqrt((self.frame["angular_update"].to_numpy(float) ** 2).mean()))

    @property
    def norm(self) -> float:
        return float(self.frame["weight_norm"].mean())

    def driven(self, rule: UpdateRule | None = None) -> float:
        """Mean h̃ of an SGD walk, as this rule or another one combines the columns."""
        frame = self.frame
        moments = StepMoments(
            gradient=frame["unit_gradient_norm"].to_numpy(float) ** 2,
            alignment=(frame["gradient_momentum_dot"] * frame["weight_norm"] ** 2).to_numpy(float),
        )
        return float(driving_moment(rule or self.rule, moments).mean())


@cache
def walk(case: Case, alignment: float = 0.0) -> Walk:
    """Let a case relax, then measure it."""
    rule, probe = take_steps(case, case.relax + MEASURED, alignment, measure_from=case.relax)
    return Walk(rule, probe.to_frame())


def take_steps(
    case: Case,
    steps: int,
    alignment: float = 0.0,
    measure_from: int = 0,
    drop_at: int | None = None,
    vectors: int = VECTORS,
    start: float = START,
) -> tuple[UpdateRule, StepProbe]:
    """Let an optimizer walk; return its rule and the probe that measured it.

    Args:
        case: The optimizer.
        steps: Optimizer steps in all.
        alignment: Length of the part of each gradient that lies along the momentum
            buffer's tangential direction, relative to the noise.
        measure_from: Step at which the probe is attached.
        drop_at: Step at which the learning rate falls to a quarter.
        vectors: Number of weights.
        start: ‖w‖/r* at the start.
    """
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(vectors, ELEMENTS, generator=generator)
    gradients = torch.empty_like(weights)
    # each parameter and its gradient are views of one row, so one operation serves all
    parameters: list[Tensor] = [torch.nn.Parameter(row.view(SHAPE)) for row in weights]
    for parameter, row in zip(parameters, gradients, strict=True):
        parameter.grad = row.view(SHAPE)
    optimizer = case.build(parameters)
    rule = UpdateRule.from_optimizer(optimizer, optimizer.param_groups[0])
    weights *= start * white_norm(rule) / weights.norm(dim=1, keepdim=True)
    probe = None
    for step in range(steps):
        if step == measure_from:
            names = [f"{i}.weight" for i in range(vectors)]
            probe = StepProbe(optimizer, list(zip(names, parameters, strict=True)), interval=1)
        if step == drop_at:
            optimizer.param_groups[0]["lr"] /= 4
        square = weights.square().sum(1, keepdim=True)
        noise = torch.randn(weights.shape, generator=generator)
        noise = tangent(noise, weights, square) / (ELEMENTS * square).sqrt()
        if alignment and step:
            buffers = [optimizer.state[p]["momentum_buffer"].flatten() for p in parameters]
            along = tangent(torch.stack(buffers), weights, square)
            along = along / along.norm(dim=1, keepdim=True)
            noise = noise + alignment * along * noise.norm(dim=1, keepdim=True)
        gradients.copy_(noise)
        optimizer.step()
    assert probe is not None
    return rule, probe


def tangent(vectors: Tensor, weights: Tensor, square: Tensor) -> Tensor:
    return vectors - weights * ((weights * vectors).sum(1, keepdim=True) / square)


def white_norm(rule: UpdateRule) -> float:
    """r* under the walks' gradients: unit gradients of squared norm 1."""
    if isinstance(rule, SGDRule):
        return equilibrium_norm(rule, 1.0)
    if isinstance(rule, AdamRule) and not rule.decoupled:
        return equilibrium_norm(rule, ELEMENTS**0.5)  # RMS 1/√C in each of C coordinates
    return equilibrium_norm(rule, elements=ELEMENTS)


def white_angle(rule: UpdateRule) -> float:
    if isinstance(rule, AdamRule) and not rule.decoupled:
        return equilibrium_angle(rule, ELEMENTS**0.5, ELEMENTS)
    return equilibrium_angle(rule)


def test_what_is_walked_is_what_its_name_says() -> None:
    """The walks prove a rule only if the reader gives each optimizer its own."""
    rules = {name: walk(case).rule for name, case in CASES.items() if name.startswith("SGD")}
    assert rules["SGD, Nesterov"] == SGDRule(0.1, 0.005, 0.9, nesterov=True)
    assert rules["SGDW"] == SGDRule(0.1, 0.01, 0.9, decoupled=True)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n == "Lion" else ()) for n in CASES]
)
def test_angle_and_norm_are_the_predicted_ones(name: str) -> None:
    case = CASES[name]
    seen = walk(case)
    angle = seen.angle / white_angle(seen.rule)
    norm = seen.norm / white_norm(seen.rule)
    print(f"\n{name}: Δ/Δ* {angle:.4f}, r/r* {norm:.4f}")
    assert angle == pytest.approx(1, abs=case.angle)
    assert norm == pytest.approx(1, abs=case.norm)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("SGD, heavy ball", lambda rule: (2 * rule.lr * rule.weight_decay) ** 0.5),
        ("SGD, Nesterov", lambda rule: equilibrium_angle(SGDRule(0.1, 0.005, 0.9))),
        ("SGDW", lambda rule: equilibrium_angle(SGDRule(0.1, 0.01, 0.9))),
        ("AdamW", lambda rule: (2 * rule.lr * rule.weight_decay) ** 0.5),
        (
            "sign of a running mean",  # sign() taken as linear
            lambda rule: (np.pi * rule.lr * rule.weight_decay * 0.1 / 1.9) ** 0.5,
        ),
    ],
)
def test_control_a_wrong_formula_fails_the_same_check(
    name: str, wrong: Callable[[Any], float]
) -> None:
    case = CASES[name]
    seen = walk(case)
    ratio = seen.angle / wrong(seen.rule)
    print(f"\n{name}: Δ over a wrong Δ* {ratio:.4f}")
    assert ratio != pytest.approx(1, abs=1.5 * case.angle)


@pytest.mark.parametrize("alignment", [0.3, -0.2])
@pytest.mark.parametrize("name", ["SGD, heavy ball", "SGD, Nesterov"])
def test_aligned_gradients_drive_the_norm_by_the_second_moment_of_theorem_2(
    name: str, alignment: float
) -> None:
    seen = walk(CASES[name], alignment)
    fed = {
        "h̃": seen.driven(),
        "‖g̃‖² alone": seen.driven(SGDRule(0.1, 0.005)),
        "2α": seen.driven(SGDRule(0.1, 0.005, 0.9)),
    }
    ratio = {what: seen.norm / equilibrium_norm(seen.rule, moment) for what, moment in fed.items()}
    print(f"\n{name}, alignment {alignment:+}: r/r* fed with {ratio}")
    assert ratio["h̃"] == pytest.approx(1, abs=0.01)
    assert abs(ratio["‖g̃‖² alone"] - 1) > 0.15  # control
    if name == "SGD, Nesterov":  # the moment of heavy ball
        assert ratio["2α"] != pytest.approx(1, abs=0.01)


def test_alignment_moves_nesterov_but_not_heavy_ball() -> None:
    """Δ* of heavy ball is universal; Nesterov's closed form holds for white gradients only."""
    for alignment, moved in ((0.3, -0.06), (-0.2, 0.09)):
        ball, ahead = (walk(CASES[n], alignment) for n in ("SGD, heavy ball", "SGD, Nesterov"))
        assert ball.angle == pytest.approx(equilibrium_angle(ball.rule), rel=0.01)
        ratio = ahead.angle / equilibrium_angle(ahead.rule)
        print(f"\nNesterov, alignment {alignment:+}: Δ/Δ* {ratio:.4f}")
        assert ratio == pytest.approx(1 + moved, abs=0.01)


def test_lion_and_sign_rules_are_told_apart_by_their_betas() -> None:
    plain, ahead = CASES["sign of a running mean"], CASES["sign of a running mean, Nesterov"]
    assert walk(plain).rule == LionRule(0.02, 0.05, 0.9, 0.9)
    assert walk(ahead).rule == LionRule(0.02, 0.05, 0.81, 0.9)
    swapped = walk(plain).angle / equilibrium_angle(walk(ahead).rule)
    assert swapped != pytest.approx(1, abs=0.1)


# ------------------------------------------------- from the probe to scores and diagnosis

FOLLOWED = {
    "SGD, heavy ball": CASES["SGD, heavy ball"],
    "SGD, Nesterov": CASES["SGD, Nesterov"],
    "SGDW": CASES["SGDW"],
    "AdamW": CASES["AdamW"],
    "Lion": lion(0.9, 0.99, decay=1e-3, relax=0),
}


def scored(
    probe: StepProbe, rule: UpdateRule, drained: dict[str, np.ndarray]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores and diagnosis of a walk, as a run's analysis makes them from its records."""
    weights = pd.DataFrame([weight(name, rule=rule.to_json()) for name in probe.names])
    predicted = predict(pd.DataFrame(drained), weights)
    scores = score(predicted, weights)
    return scores, diagnose(predicted, scores, weights)


@pytest.mark.parametrize("name", FOLLOWED)
def test_the_law_follows_a_real_optimizer_through_a_drop(name: str) -> None:
    rule, probe = take_steps(FOLLOWED[name], 600, drop_at=300, vectors=8)
    drained = probe.drain()
    scores, causes = scored(probe, rule, drained)
    print(f"\n{name}: trajectory errors {scores['trajectory_error'].round(4).tolist()}")
    print(f"r/r* {scores['norm_ratio'].round(3).tolist()}\n{causes['detail'].iloc[0]}")
    assert (scores["trajectory_error"] < 0.02).all()
    assert scores["elapsed"].iloc[0] < 2
    assert (causes["cause"] == RELAXING).all()
    # control: the same samples as another rule reads them
    wrong: UpdateRule = SGDRule(rule.lr, rule.weight_decay)
    if isinstance(rule, SGDRule):
        wrong = SGDRule(rule.lr, rule.weight_decay, 0.9, nesterov=not rule.nesterov)
    misread, _ = scored(probe, wrong, drained)
    assert (misread["trajectory_error"] > 0.04).all()


def test_adamw_measured_seldom_from_its_first_step_on() -> None:
    """Its first u is 19 times as long, squared, as most until the next sample."""
    case = adam(torch.optim.AdamW, 1e-3, 0.05)
    rule, probe = take_steps(case, 2_000, vectors=4, start=0.2)
    every_step = probe.drain()
    seldom = {name: column[every_step["step"] % 50 == 0] for name, column in every_step.items()}
    scores, _ = scored(probe, rule, seldom)
    print(f"\ntrajectory errors {scores['trajectory_error'].round(4).tolist()}")
    assert (scores["trajectory_error"] < 0.02).all()
    # control: taken for a state that was there before, the first u stands for all until step 50
    seldom["gradient_momentum_dot"] = np.full(len(seldom["step"]), 1e-9)
    misread, _ = scored(probe, rule, seldom)
    print(f"misread {misread['trajectory_error'].round(4).tolist()}")
    assert (misread["trajectory_error"] > 0.04).all()


def test_aligned_gradients_are_diagnosed_where_they_move_the_angle() -> None:
    for name, cause in (("SGD, heavy ball", "in equilibrium"), ("SGD, Nesterov", ALIGNED)):
        case = CASES[name]
        rule, probe = take_steps(case, 900, alignment=0.3, measure_from=case.relax, vectors=8)
        _, causes = scored(probe, rule, probe.drain())
        print(f"\n{name}: {causes['cause'].tolist()}, {causes['detail'].iloc[0]}")
        named = causes["cause"].value_counts()
        assert named.index[0] == cause
        assert set(named.index) <= {cause, "in equilibrium"}
