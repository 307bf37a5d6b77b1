"""Weights that their optimizer turns by a set angle, from samples to table and picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from smd_hooks import StepProbe
from smd_hooks.analysis import agreement_table, diagnose, load_runs, predict, score
from smd_hooks.analysis.diagnosis.causes import (
    MOVED,
    NO_EQUILIBRIUM,
    NO_GRADIENT,
    NOT_AS_SET,
    ROUNDING,
    TOO_SHORT,
    TURNED_AS_SET,
    ZERO_NORM,
)
from smd_hooks.analysis.diagnosis.summary import summarize
from smd_hooks.analysis.figures import draw_angular_updates
from smd_hooks.analysis.report.series import a_priori_ratio
from smd_hooks.optim import LionAR, RotationalAdamW, RotationalLion, RotationalSGD
from smd_hooks.theory import NoPrediction, RotationalRule, UpdateRule, inverse_bias_factor
from tests.analysis.work_dirs import (
    CONFIG,
    RULE,
    TURNED,
    launch,
    perfect_samples,
    turned_samples,
    weight,
)

ENTRY = weight("a", rule=TURNED.to_json())
AS_SET = "turned as set: in equilibrium by construction"


def judged(
    samples: dict[str, np.ndarray], weights: list[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Score and diagnosis of the first weight, and the run's summary."""
    table = pd.DataFrame(weights)
    predicted = predict(pd.DataFrame(samples), table)
    scores = score(predicted, table)
    causes = diagnose(predicted, scores, table)
    summary = summarize(scores, table, measured=True, causes=causes)
    return scores.iloc[0].to_dict(), causes.iloc[0].to_dict(), summary


def settled(steps: int = 300) -> dict[str, np.ndarray]:
    return turned_samples(np.arange(steps), np.full(steps, TURNED.lr))


@pytest.mark.parametrize("schedule", ["linear", "sqrt"])
@pytest.mark.parametrize("interval", [1, 50])
def test_the_set_angle_is_followed_through_warmup_and_cosine(schedule: str, interval: int) -> None:
    steps = np.arange(600)
    rates = 0.05 * (1 + np.cos(np.pi * steps / 599)) * np.minimum(1, steps / 100)
    rule = RotationalRule(**{**vars(TURNED), "schedule": schedule})
    samples = turned_samples(steps * interval, rates, rule)
    found, cause, summary = judged(samples, [weight("a", rule=rule.to_json())])
    for name in ("angle_ratio", "norm_ratio"):
        assert found[name] == pytest.approx(1, abs=1e-9)
    assert found["trajectory_error"] == pytest.approx(0, abs=1e-9)
    assert found["rotational"]
    assert np.isnan(found["elapsed"])
    assert cause["cause"] == TURNED_AS_SET
    assert (summary["verdict"], summary["in_equilibrium"], summary["si_params"]) == (
        AS_SET,
        1.0,
        "1/1",
    )
    # control: held against the other schedule, the same samples miss
    other = RotationalRule(
        **{**vars(TURNED), "schedule": {"linear": "sqrt"}.get(schedule, "linear")}
    )
    missed, cause, _ = judged(samples, [weight("a", rule=other.to_json())])
    assert missed["trajectory_error"] > 0.2
    assert abs(np.log(missed["angle_ratio"])) > 0.5
    assert cause["cause"] == NOT_AS_SET


@pytest.mark.parametrize("wrong", [0.5, 2.0])
def test_control_a_weight_that_turns_wrongly(wrong: float) -> None:
    samples = settled()
    samples["angular_update"] *= wrong
    found, cause, summary = judged(samples, [ENTRY])
    assert found["angle_ratio"] == pytest.approx(wrong)
    assert found["trajectory_error"] == pytest.approx(abs(np.log(wrong)))
    assert (cause["cause"], cause["value"]) == (NOT_AS_SET, pytest.approx(wrong))
    assert ("neurons without a gradient" in cause["detail"]) is (wrong < 1)
    side = "above" if wrong > 1 else "below"
    assert summary["verdict"] == (
        f"{side} the set angle by {abs(wrong - 1):.0%}: not turned as set in 1 of 1 such layers"
    )


def test_a_deviation_that_is_over_at_the_end_is_told_too() -> None:
    samples = settled()
    samples["angular_update"][:-100] *= 1.2
    found, cause, _ = judged(samples, [ENTRY])
    assert found["angle_ratio"] == pytest.approx(1)
    assert cause["cause"] == NOT_AS_SET
    assert cause["detail"].endswith("off it by 0.18 in the median of the run")


def test_early_steps_of_an_inverse_bias_correction_are_no_error() -> None:
    samples = settled(100)
    samples["angular_update"] *= inverse_bias_factor(0.98, np.arange(1, 101))
    corrected = RotationalRule(**{**vars(TURNED), "corrected_beta": 0.98})
    found, _, _ = judged(samples, [weight("a", rule=corrected.to_json())])
    assert found["trajectory_error"] == pytest.approx(0, abs=1e-9)
    without, _, _ = judged(samples, [ENTRY])
    assert without["trajectory_error"] > 0.04


# ----------------------------------------------------------------------------------- causes


def test_rounding_of_low_precision_weights() -> None:
    samples, angle = settled(), TURNED.angular_update
    samples["angular_update"] *= 0.4
    _, coarse, _ = judged(samples, [{**ENTRY, "rounding_angle": 1.5 * angle}])
    assert (coarse["cause"], coarse["value"]) == (ROUNDING, pytest.approx(1.5 * angle))
    _, fine, _ = judged(samples, [{**ENTRY, "rounding_angle": 0.01 * angle}])
    assert fine["cause"] == NOT_AS_SET


@pytest.mark.parametrize(("factor", "moved"), [(1.002, True), (1.0002, False), (0.9, True)])
def test_a_norm_that_somebody_else_changes(factor: float, moved: bool) -> None:
    samples = settled()
    samples["weight_norm"][100:] *= factor
    found, cause, summary = judged(samples, [ENTRY])
    assert found["norm_ratio"] == pytest.approx(factor)
    assert cause["cause"] == (MOVED if moved else TURNED_AS_SET)
    told = "turned as set, but moved by something else in 1 of 1 layers"
    assert summary["verdict"] == (told if moved else AS_SET)
    if moved:
        assert cause["value"] == pytest.approx(factor)


def test_a_weight_that_begins_at_zero() -> None:
    samples = settled()
    samples["weight_norm"][0] = 0.0
    samples["weight_norm"][1:] = np.linspace(0.1, 3, 299)
    samples["angular_update"] *= 0.2
    _, cause, _ = judged(samples, [ENTRY])
    assert cause["cause"] == ZERO_NORM
    samples["weight_norm"][:] = 0.0  # and one that stays there
    found, cause, _ = judged(samples, [ENTRY])
    assert np.isnan(found["norm_ratio"])
    assert cause["cause"] == ZERO_NORM


def test_steps_without_a_gradient() -> None:
    samples = settled()
    samples["gradient_norm"][::2] = 0.0
    samples["angular_update"][::2] = 0.0
    _, cause, _ = judged(samples, [ENTRY])
    assert (cause["cause"], cause["value"]) == (NO_GRADIENT, 0.5)


def test_what_has_no_set_angle() -> None:
    samples = settled()
    samples["weight_decay"][:] = 0.0
    found, cause, summary = judged(samples, [ENTRY])
    assert np.isnan(found["angle_ratio"])
    assert cause["cause"] == NO_EQUILIBRIUM
    assert (
        summary["verdict"] == "not applicable: no weight decay and no angle, so nothing is turned"
    )
    assert "angle_ratio" not in summary
    # an angle does without
    rule = RotationalRule(**{**vars(TURNED), "angle": TURNED.angular_update})
    found, cause, _ = judged(samples, [weight("a", rule=rule.to_json())])
    assert found["angle_ratio"] == pytest.approx(1)
    assert cause["cause"] == TURNED_AS_SET


def test_a_few_samples_say_nothing() -> None:
    _, cause, summary = judged(settled(10), [ENTRY])
    assert cause["cause"] == TOO_SHORT
    assert summary["verdict"].startswith("too short: 10 samples")


def test_a_spread_that_the_median_hides() -> None:
    samples = turned_samples(np.arange(300), np.full(300, TURNED.lr), weights=3)
    samples["angular_update"] *= np.choose(samples["weight"], [0.5, 1.0, 1.6])
    _, _, summary = judged(samples, [{**ENTRY, "parameter": name} for name in "abc"])
    assert summary["verdict"].startswith("turned as set in the median, layers from 0.5")


# ------------------------------------------------------------------------------- mixed runs


def mixed(steps: int = 600) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Two turned weights beside one of SGD, over a drop that leaves the latter behind."""
    rates = np.where(np.arange(steps) < 300, 0.1, 0.01)
    turned = turned_samples(np.arange(steps), rates, weights=2)
    ordinary = perfect_samples(np.arange(steps), rates)
    ordinary["weight"] = ordinary["weight"] + 2
    samples = {k: np.concatenate([turned[k], ordinary[k]]) for k in turned}
    return samples, [ENTRY, {**ENTRY, "parameter": "b"}, weight("c", rule=RULE.to_json())]


def test_each_kind_of_weight_has_its_own_verdict() -> None:
    samples, entries = mixed()
    _, cause, summary = judged(samples, entries)
    assert cause["cause"] == TURNED_AS_SET
    assert summary["verdict"] == (
        f"{AS_SET} (2 of 3); below equilibrium: 0.6 relaxation times since the last jump of lr "
        "or weight decay (1 of 3)"
    )
    assert summary["in_equilibrium"] == pytest.approx(2 / 3)
    table = pd.DataFrame(entries)
    predicted = predict(pd.DataFrame(samples), table)
    alone = predict(pd.DataFrame(samples).query("weight == 2"), table)
    together = predicted[predicted["weight"] == 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(together, alone)


# ------------------------------------------------------------------------ work dirs, pictures

LION_AR = CONFIG.replace("type='SGD', lr=0.1, momentum=0.9", "type='smd_hooks.LionAR', lr=0.1")


def test_a_run_end_to_end(tmp_path: Path) -> None:
    steps = np.arange(400)
    rates = np.where(steps < 300, 0.1, 0.01)
    run = {"weights": [ENTRY, weight("fc", invariant=False, rule=TURNED.to_json())]}
    launch(
        tmp_path / "turned",
        "20260101_000000",
        samples=turned_samples(steps, rates, weights=2),
        run=run,
        config=LION_AR,
    )
    samples, entries = mixed()
    launch(tmp_path / "mixed", "20260101_000000", samples=samples, run={"weights": entries})
    runs = {run.name: run for run in load_runs(tmp_path)}
    table = agreement_table(list(runs.values())).set_index("run")
    row = table.loc["turned"].to_dict()
    assert (row["optimizer"], row["lr"], row["weight_decay"]) == ("LionAR", 0.1, 0.005)
    assert (row["si_params"], row["in_equilibrium"], row["verdict"]) == ("1/2", 1.0, AS_SET)
    for name in ("angle_ratio", "angle_ratio_p05", "angle_ratio_p95", "norm_ratio"):
        assert row[name] == pytest.approx(1, abs=1e-6)
    assert row["trajectory_error"] == pytest.approx(0, abs=1e-6)
    assert table.loc["mixed", "verdict"].startswith(f"{AS_SET} (2 of 3); below")
    # the picture: 1 from the first step on, and in a mixed run the curve of what relaxes
    draw_angular_updates(list(runs.values()), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    where, ratio = a_priori_ratio(runs["turned"])
    assert where.tolist() == steps.tolist()
    assert (ratio == 1).all()
    where, ratio = a_priori_ratio(runs["mixed"])
    assert where[0] == 299
    assert ratio[1] == pytest.approx(10**-0.5)


def test_a_rule_that_became_another_in_a_resumed_run_is_refused(tmp_path: Path) -> None:
    other = RotationalRule(**{**vars(TURNED), "schedule": "sqrt"})
    for day, (rule, start) in enumerate([(other, 0), (TURNED, 200)]):
        samples = turned_samples(np.arange(start, start + 200), np.full(200, 0.1), rule)
        entry = weight("a", rule=rule.to_json(), first_step=start, changes=[[start, True]])
        launch(tmp_path, f"2026010{day + 1}_000000", samples=samples, run={"weights": [entry]})
    (run,) = load_runs(tmp_path)
    (row,) = agreement_table([run]).to_dict("records")
    assert row["verdict"].endswith("changed during training: schedule from sqrt to linear")


# ------------------------------------------------------------------------- real optimizers


@pytest.mark.parametrize(
    ("kind", "settings", "band"),
    [
        (LionAR, {"lr": 1e-2, "beta": 0.98, "nesterov": True}, 1e-5),
        (LionAR, {"lr": 1e-2, "inverse_bias_correction": True, "per_neuron": False}, 1e-5),
        (RotationalSGD, {"lr": 1e-2}, 0.03),
        (RotationalAdamW, {"lr": 1e-2}, 0.03),
        (RotationalLion, {"lr": 1e-2, "schedule": "linear"}, 0.03),
    ],
)
def test_measured_on_a_network(kind: type, settings: dict[str, Any], band: float) -> None:
    """From the optimizer's own steps; two convs turned, the third left to ordinary steps."""
    torch.manual_seed(0)
    blocks = [(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)) for _ in range(3)]
    model = nn.Sequential(*[m for block in blocks for m in (*block, nn.ReLU())], nn.Flatten())
    convs = [model[i].weight for i in (0, 3, 6)]
    groups = [{"params": convs[:2]}, {"params": convs[2:], "rotational": False}]
    optimizer = kind(groups, weight_decay=0.1, **settings)
    decline = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=200)
    probe = StepProbe(optimizer, model.named_parameters())
    entries = [entry_of(optimizer, probe, i) for i in range(3)]
    for _ in range(150):
        optimizer.zero_grad()
        (model(torch.randn(8, 8, 5, 5)) * torch.randn(8, 200)).sum().backward()
        optimizer.step()
        decline.step()
    table = pd.DataFrame(entries)
    samples = pd.DataFrame(probe.drain())
    predicted = predict(samples, table)
    scores = score(predicted, table).set_index("parameter")
    turned = scores.loc[["0.weight", "3.weight"]]
    assert turned["rotational"].all()
    assert turned["angle_ratio"].tolist() == pytest.approx([1, 1], rel=band)
    assert (turned["trajectory_error"] < band).all()
    assert turned["norm_ratio"].tolist() == pytest.approx([1, 1], rel=1e-6)
    causes = diagnose(predicted, scores.reset_index(), table).set_index("parameter")["cause"]
    assert causes[["0.weight", "3.weight"]].tolist() == [TURNED_AS_SET] * 2
    # control: what was opted out is not turned by that angle
    rules = [{**entry, "rule": entries[0]["rule"]} for entry in entries]
    missed = score(predict(samples, pd.DataFrame(rules)), pd.DataFrame(rules)).iloc[2]
    assert abs(np.log(missed["angle_ratio"])) > 0.1
    assert abs(missed["norm_ratio"] - 1) > 1e-3


def entry_of(optimizer: torch.optim.Optimizer, probe: StepProbe, index: int) -> dict[str, Any]:
    """What SMDHook would write of a weight."""
    try:
        rule = UpdateRule.from_optimizer(optimizer, probe.param_group(index)).to_json()
    except NoPrediction as reason:
        return weight(probe.names[index], rule=None, no_prediction=str(reason))
    return weight(probe.names[index], rule=rule)
