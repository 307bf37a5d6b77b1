"""The laws against random walks on the sphere, which know nothing of the laws."""

from __future__ import annotations

import numpy as np
import pytest

from smd_hooks.theory import (
    Trajectory,
    UpdateRule,
    driving_moment,
    equilibrium_angle,
    equilibrium_norm,
    relaxation_ratio,
    relaxation_time,
    second_moment_trajectory,
)

RULES = {
    "sgd": UpdateRule(0.1, 0.005),
    "heavy_ball": UpdateRule(0.1, 0.005, 0.9),
    "damped": UpdateRule(0.2, 0.005, 0.9, dampening=0.5),
    "nesterov": UpdateRule(0.1, 0.005, 0.9, nesterov=True),
}


class Walk:
    """48 scale-invariant weights of 384 elements under random gradients.

    ``alignment`` mixes the momentum's tangential direction into the gradient.
    """

    def __init__(
        self,
        rule: UpdateRule,
        rates: np.ndarray,
        alignment: float = 0.0,
        rescale_at: dict[int, float] | None = None,
    ) -> None:
        rng = np.random.default_rng(0)
        w = rng.normal(size=(48, 384))
        w /= np.linalg.norm(w, axis=1, keepdims=True)
        v = np.zeros_like(w)
        rows, self.rescale, total = [], [], 1.0
        for t, lr in enumerate(rates):
            c = (rescale_at or {}).get(t, 1.0)
            w, v, total = w * c, v / c, total * c
            self.rescale.append(total)
            r2 = (w * w).sum(1, keepdims=True)
            g = rng.normal(size=w.shape)
            g = (g - w * (g * w).sum(1, keepdims=True) / r2) / np.sqrt(384 * r2)
            if alignment:
                u = v - w * (v * w).sum(1, keepdims=True) / r2
                length = np.linalg.norm(u, axis=1, keepdims=True) + 1e-12
                g = g + alignment * u / length * np.linalg.norm(g, axis=1, keepdims=True)
            before = v
            full = g + rule.weight_decay * w
            v = rule.momentum * v + (full if t == 0 else (1 - rule.dampening) * full)
            step = full + rule.momentum * v if rule.nesterov else v
            after = w - lr * step
            chord = after / np.linalg.norm(after, axis=1, keepdims=True) - w / np.sqrt(r2)
            angle = 2 * np.arcsin(np.linalg.norm(chord, axis=1) / 2)
            g2, vg = (g * g).sum(1), (before * g).sum(1)
            rows.append(
                (
                    np.sqrt(r2.mean()),
                    np.sqrt((angle**2).mean()),
                    (g2 * r2[:, 0]).mean(),
                    (vg * r2[:, 0]).mean(),
                )
            )
            w = after
        self.norm, self.angle, self.gradient, self.alignment = np.array(rows).T


def follow(rule: UpdateRule, rates: np.ndarray, walk: Walk) -> Trajectory:
    column = np.ones((len(rates), 1))
    return second_moment_trajectory(
        rule,
        np.arange(len(rates)),
        rates[:, None],
        column * rule.weight_decay,
        walk.gradient[:, None],
        walk.alignment[:, None],
        walk.norm[:1],
        np.array(walk.rescale)[:, None],
    )


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("alignment", [0.0, 0.3, -0.2])
def test_the_law_follows_a_walk_through_a_drop(name: str, alignment: float) -> None:
    rule = RULES[name]
    rates = np.r_[np.full(300, rule.lr), np.full(300, rule.lr / 10)]
    walk = Walk(rule, rates, alignment)
    law = follow(rule, rates, walk)
    assert np.abs(np.log(law.weight_norm[:, 0] / walk.norm)).max() < 0.005
    assert np.median(np.abs(np.log(law.angular_update[:, 0] / walk.angle))) < 0.005


def test_the_law_follows_a_rescaled_walk() -> None:
    rule = RULES["heavy_ball"]
    rates = np.r_[np.full(300, 0.1), np.full(300, 0.01)]
    walk = Walk(rule, rates, rescale_at={300: 10**-0.25})
    law = follow(rule, rates, walk)
    assert np.abs(np.log(law.angular_update[5:, 0] / walk.angle[5:])).max() < 0.01
    assert walk.angle[320:].mean() == pytest.approx(
        equilibrium_angle(rule.at(0.01, 0.005)), rel=0.03
    )


def test_control_the_law_of_another_rule_fails() -> None:
    """A Nesterov walk held against heavy ball's law, and its moment with 2α for 2α²."""
    rule, wrong = RULES["nesterov"], RULES["heavy_ball"]
    rates = np.full(900, rule.lr)
    walk = Walk(rule, rates, alignment=0.3)
    law = follow(wrong, rates, walk)
    assert np.median(np.abs(np.log(law.angular_update[300:, 0] / walk.angle[300:]))) > 0.05
    gradient, alignment = walk.gradient[-300:].mean(), walk.alignment[-300:].mean()
    right, off = (
        walk.norm[-300:].mean()
        / equilibrium_norm(rule, float(driving_moment(r, gradient, alignment)))
        for r in (rule, wrong)
    )
    assert right == pytest.approx(1, abs=0.005)
    assert abs(off - 1) > 0.01


@pytest.mark.parametrize("name", RULES)
def test_walks_end_at_the_equilibrium_norm_and_angle(name: str) -> None:
    rule = RULES[name]
    rates = np.full(3_000 if name == "sgd" else 900, rule.lr)
    walk = Walk(rule, rates)
    moment = driving_moment(rule, walk.gradient[-300:].mean(), walk.alignment[-300:].mean())
    assert walk.norm[-300:].mean() == pytest.approx(equilibrium_norm(rule, moment), rel=0.01)
    angle = np.sqrt((walk.angle[-300:] ** 2).mean())
    assert angle == pytest.approx(equilibrium_angle(rule), rel=0.01)


@pytest.mark.parametrize("alignment", [0.3, -0.2])
def test_control_the_norm_from_gradients_alone_is_wrong(alignment: float) -> None:
    rule = RULES["heavy_ball"]
    walk = Walk(rule, np.full(900, rule.lr), alignment)
    naive = equilibrium_norm(rule, walk.gradient[-300:].mean())
    assert abs(walk.norm[-300:].mean() / naive - 1) > 0.1


def test_a_late_start_needs_no_momentum_history() -> None:
    rule = RULES["heavy_ball"]
    rates = np.full(600, rule.lr)
    walk = Walk(rule, rates)
    column = np.ones((300, 1))
    law = second_moment_trajectory(
        rule,
        np.arange(300, 600),
        column * rule.lr,
        column * rule.weight_decay,
        walk.gradient[300:, None],
        walk.alignment[300:, None],
        walk.norm[300:301],
        from_first_step=False,
    )
    assert np.abs(np.log(law.angular_update[:, 0] / walk.angle[300:])).max() < 0.05


def test_sparse_samples_hold_the_earlier_value() -> None:
    """Every 10th step measured: the law still walks all steps between."""
    rule = RULES["heavy_ball"]
    walk = Walk(rule, np.full(601, rule.lr))
    some = slice(None, None, 10)
    column = np.ones((61, 1))
    law = second_moment_trajectory(
        rule,
        np.arange(0, 601, 10),
        column * rule.lr,
        column * rule.weight_decay,
        walk.gradient[some, None],
        walk.alignment[some, None],
        walk.norm[:1],
    )
    assert np.abs(np.log(law.weight_norm[:, 0] / walk.norm[some])).max() < 0.02


def test_the_a_priori_curve_is_the_closed_form_after_a_drop() -> None:
    rule, k = UpdateRule(0.1, 0.005, 0.9), 10
    steps = np.arange(2_000)
    rates = np.where(steps < 500, 0.1, 0.1 / k)
    ratio = relaxation_ratio(rule, steps, rates, np.full(2_000, 0.005))
    elapsed = (steps[500:] - 500) / relaxation_time(rule.at(0.01, 0.005))
    closed = (1 + (k - 1) * np.exp(-elapsed)) ** -0.5
    assert np.allclose(ratio[:500], 1)
    assert np.allclose(ratio[500:], closed)
    assert closed[0] == pytest.approx(10**-0.5)


def test_the_a_priori_curve_stays_at_one_when_rescaled() -> None:
    rates = np.repeat([0.1, 0.01], 100)
    scale = np.repeat([1.0, 10**-0.25], 100)
    rule = UpdateRule(0.1, 0.005, 0.9)
    assert np.allclose(relaxation_ratio(rule, np.arange(200), rates, np.full(200, 0.005), scale), 1)


def test_the_a_priori_curve_of_the_published_stages() -> None:
    """ImageNet: ÷10 at epochs 30, 60, 80 of 90, Δ/Δ* at the stages' starts and ends."""
    per_epoch = 5_005
    steps = np.arange(0, 90 * per_epoch, 5)
    rates = 0.1 * 0.1 ** np.searchsorted([30, 60, 80], steps / per_epoch, side="right")
    ratio = relaxation_ratio(UpdateRule(0.1, 1e-4, 0.9), steps, rates, np.full(len(steps), 1e-4))
    starts = np.flatnonzero(np.diff(rates)) + 1
    assert ratio[starts] == pytest.approx([0.316, 0.313, 0.118], abs=2e-3)
    assert ratio[[*(starts[1:] - 1), -1]] == pytest.approx([0.989, 0.373, 0.119], abs=2e-3)
