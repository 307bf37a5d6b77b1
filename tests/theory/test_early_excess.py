"""What bias correction adds to AdamW's first steps."""

from __future__ import annotations

import numpy as np
import pytest

from smd_hooks.theory import AdamRule, LionRule, StepMoments, early_excess, second_moment_trajectory

from .walks import Walk


@pytest.mark.parametrize("beta", [0.5, 0.9])
@pytest.mark.parametrize("seen", [1, 2, 7, 40])
def test_early_excess_is_that_of_a_mean_of_few(beta: float, seen: int) -> None:
    """White gradients of norm 1: ‖Σ wₖgₖ‖² is Σ wₖ², wₖ the weights that bias correction gives."""

    def square(n: int) -> float:
        weights = beta ** np.arange(n)
        return float(((weights / weights.sum()) ** 2).sum())

    rule = AdamRule(1e-3, 0.1, beta1=beta)
    assert early_excess(rule, seen) == pytest.approx(square(seen) / square(1_000))
    assert early_excess(rule, np.inf) == 1
    assert early_excess(LionRule(1e-3, 0.1), seen) == 1


def test_adamw_sampled_sparsely_from_its_empty_state_on() -> None:
    """The first of every 20 steps has a u 19 times as long, squared, as those that follow."""
    rule, every = AdamRule(0.004, 0.5, 0.9, 0.95), 20
    walk = Walk(rule, np.full(401, rule.lr))
    column = np.ones((21, 1))

    measured = walk.moments.need("direction")

    def error(direction: np.ndarray) -> float:
        law = second_moment_trajectory(
            rule,
            np.arange(0, 401, every),
            column * rule.lr,
            column * rule.weight_decay,
            StepMoments(direction=direction[::every]),
            walk.norm[:1],
        )
        return float(np.abs(np.log(law.weight_norm[:, 0] / walk.norm[::every])).max())

    assert error(measured / early_excess(rule, np.arange(1, 402)[:, None])) < 0.02
    assert error(measured) > 0.2  # control: as measured
