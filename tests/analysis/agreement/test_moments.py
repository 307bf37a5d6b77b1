"""What AdamW's preconditioner leaves along a weight, told from records, is what it leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from smd_hooks import StepProbe
from smd_hooks.analysis.agreement.moments import measured_moments, unlike_moment
from smd_hooks.theory import AdamRule, SGDRule, early_excess, preconditioned_radial
from tests.optim.digits import network, train

RULE = AdamRule(0.01, 0.1, 0.9, 0.99)
CONVS = ["0.weight", "4.weight"]
STEPS, SETTLED = 400, 100


@pytest.fixture(scope="module")
def trained() -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Samples of every step, and ⟨w, Dg⟩ of each as it was."""
    model = network()
    settings: Any = {"lr": RULE.lr, "weight_decay": RULE.weight_decay, "betas": (0.9, 0.99)}
    optimizer = torch.optim.AdamW(model.parameters(), **settings)
    weights = {name: w for name, w in model.named_parameters() if w.ndim > 1}
    before: dict[str, torch.Tensor] = {}
    radial: dict[str, list[float]] = {name: [] for name in weights}

    def keep(*_: Any) -> None:
        before.update({name: w.detach().double() for name, w in weights.items()})

    def compare(*_: Any) -> None:
        for name, w in weights.items():
            state, gradient = optimizer.state[w], w.grad
            assert gradient is not None
            root = (state["exp_avg_sq"].double() / (1 - 0.99 ** float(state["step"]))).sqrt()
            radial[name].append(float((before[name] * gradient / (root + 1e-8)).sum()))

    optimizer.register_step_pre_hook(keep)
    optimizer.register_step_post_hook(compare)
    probe = StepProbe(optimizer, model.named_parameters())
    train(model, optimizer, STEPS)
    return probe.to_frame(), {name: np.array(values) for name, values in radial.items()}


def frame_of(samples: pd.DataFrame, name: str) -> pd.DataFrame:
    frame = samples[samples["parameter"] == name].reset_index(drop=True)
    seen = frame["step"] + 1.0
    return frame.assign(own_step=frame["step"], stage=0, early_excess=early_excess(RULE, seen))


def inferred(frame: pd.DataFrame, rule: AdamRule) -> np.ndarray:
    moments, settings = measured_moments(frame), [frame[c] for c in ("lr", "weight_decay")]
    measured = (moments.need("direction"), moments.need("radial"))
    return preconditioned_radial(rule, frame["own_step"], *settings, *measured)


def test_it_is_found_without_reading_second_moments(
    trained: tuple[pd.DataFrame, dict[str, np.ndarray]],
) -> None:
    samples, radial = trained
    for name in CONVS:
        frame, real = frame_of(samples, name), radial[name]
        size = np.sqrt(np.mean(real[SETTLED:] ** 2))
        for rule, is_right in ((RULE, True), (replace(RULE, beta1=0.5), False)):
            off = np.sqrt(np.mean((inferred(frame, rule) - real)[SETTLED:] ** 2)) / size
            # D moves on from step to step, which is not part of it
            assert off < 0.2 if is_right else off > 1


def test_what_chance_can_make_is_left_out() -> None:
    """Beyond it the mean is given, stage by stage; other rules have nothing of the kind."""
    rng, count, push, u2 = np.random.default_rng(0), 400, 5.0, 100.0
    steps, q = np.arange(count), 1 - RULE.lr * RULE.weight_decay
    share = RULE.beta1 * q
    fresh = rng.normal(np.where(steps < 200, push, 0.0), 5.0)
    along = np.zeros(count)
    for t in steps[1:]:
        inherited = share * along[t - 1] - RULE.beta1 * RULE.lr * u2
        along[t] = inherited + (1 - RULE.beta1) * fresh[t]
    frame = pd.DataFrame(
        {
            "own_step": steps,
            "stage": steps // 200,
            "early_excess": 1.0,
            "lr": RULE.lr,
            "weight_decay": RULE.weight_decay,
            "weight_norm": 1.0,
            "gradient_norm": 1.0,
            "radial_cosine": 0.0,
            "radial_update": -RULE.lr * along - (1 - q),
        }
    )
    # ‖w' − w‖ of such a u
    across = RULE.lr**2 * u2 + 2 * RULE.lr * (1 - q) * along + (1 - q) ** 2
    frame["update_norm"] = np.sqrt(across)
    left = unlike_moment(frame, RULE, began_empty=False)
    assert left[:200].mean() == pytest.approx(push, rel=0.1)
    assert np.abs(left[200:]).mean() < np.abs(fresh[200:].mean()) + 0.2
    assert not unlike_moment(frame, SGDRule(0.1, 0.01), False).any()
    assert not unlike_moment(frame, replace(RULE, decoupled=False), False).any()
