"""The forecast against the theory's own law, and what it says in words."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_hooks.analysis.forecast.forecast import Forecast, Stage, forecast_plan
from smd_hooks.analysis.forecast.law import forgotten_norms, relax, relaxation_times_needed
from smd_hooks.analysis.forecast.plan import Layers, Plan, WeightGroup
from smd_hooks.measure.probe import RESCALE_KEY
from smd_hooks.measure.rescaling import EquilibriumRescaling
from smd_hooks.theory import (
    AdamRule,
    LionRule,
    RotationalRule,
    SGDRule,
    UpdateRule,
    equilibrium_angle,
    relaxation_ratio,
    relaxation_time,
)

SGDM = SGDRule(0.1, 1e-4, momentum=0.9)
SOME = Layers(invariant=("a.weight",))


def plan(
    rule: UpdateRule | str, starts: Any, lr: Any, steps: int, layers: Layers = SOME, **more: Any
) -> Plan:
    known = {k: more.pop(k) for k in ("initial_norm", "initial_rms") if k in more}
    group = WeightGroup(rule, np.asarray(lr, float), ("a.weight",), **known)
    return Plan("plan", np.asarray(starts), steps, (group,), layers, **more)


def goyal(**more: Any) -> Plan:
    epoch = 5004
    starts = [0, 30 * epoch, 60 * epoch, 80 * epoch]
    more = {"steps_per_epoch": epoch, **more}
    return plan(SGDM, starts, [0.1, 0.01, 0.001, 0.0001], 90 * epoch, **more)


def coco(**more: Any) -> Plan:
    warmup = np.linspace(2e-5, 0.02, 501)
    starts = [*range(501), 300_000, 340_000]
    return plan(SGDM, starts, [*warmup, 0.002, 0.0002], 360_000, **more)


def stages_of(forecast: Forecast) -> dict[str, Stage]:
    return {stage.name: stage for stage in forecast.groups[0].stages}


def test_stage_ends_of_the_papers_schedules() -> None:
    """The closed-form values of the two ImageNet and COCO schedules, to the third digit."""
    ends = [f"{stage.ratio[-1]:.3f}" for stage in stages_of(forecast_plan(goyal())).values()]
    assert ends == ["1.000", "0.989", "0.373", "0.119"]
    found = stages_of(forecast_plan(coco()))
    assert list(found) == ["warmup", "1", "2", "3"]
    assert [f"{found[n].ratio[-1]:.3f}" for n in "123"] == ["1.000", "0.364", "0.116"]
    # not because everything would come out so: half the decay relaxes half as far
    weak = plan(SGDM.at(0.1, 5e-5), goyal().starts, goyal().groups[0].lr, goyal().steps)
    closed_form = (1 + 9 * math.exp(-30 * 5004 / 50_000)) ** -0.5
    assert stages_of(forecast_plan(weak))["2"].ratio[-1] == pytest.approx(closed_form, abs=1e-4)
    assert closed_form < 0.9


def test_relaxation_and_epochs_of_a_stage() -> None:
    stage = stages_of(forecast_plan(goyal()))["2"]
    assert stage.relaxation_steps[0] == pytest.approx(25_000)
    assert stage.relaxation_epochs[0] == pytest.approx(25_000 / 5004)
    assert stage.length == pytest.approx(30 * 5004 / 25_000)
    assert (stage.first_epoch, stage.last_epoch) == (30, 60)
    assert stage.equilibrium_angle[0] == equilibrium_angle(SGDM.at(0.01, 1e-4))
    assert stage.steps_needed == pytest.approx(4.4225 * 25_000, rel=1e-4)


RULES = [
    SGDM,
    SGDRule(0.1, 1e-3, decoupled=True),
    AdamRule(0.1, 0.01),
    LionRule(0.1, 0.01),
    RotationalRule(0.1, 0.1, 1.0, 0.1),
]
rates = st.floats(1e-4, 0.2)
stretches = st.lists(st.tuples(st.integers(1, 3000), rates), min_size=1, max_size=12)


@given(rule=st.sampled_from(RULES), schedule=stretches, initial=st.floats(0.3, 3.0))
@settings(max_examples=60, deadline=None)
def test_fast_law_is_the_theorys(
    rule: UpdateRule, schedule: list[tuple[int, float]], initial: float
) -> None:
    counts = np.array([count for count, _ in schedule])
    lr = np.array([rate for _, rate in schedule])
    starts = np.append(0, np.cumsum(counts)[:-1])
    found = relax(rule, starts, int(counts.sum()), lr, initial)
    # the reference starts from the norm in units of the first rate's equilibrium
    power = 4 if isinstance(rule, SGDRule) else 2
    first = initial * (lr.max() / lr[0]) ** (1 / power)
    both = np.stack([starts, starts + counts - 1], 1).ravel()
    keep = np.append(True, np.diff(both) > 0)  # a stretch of one step begins where it ends
    reference = relaxation_ratio(
        rule,
        both[keep],
        np.repeat(lr, 2)[keep],
        np.full(keep.sum(), rule.weight_decay),
        initial=first,
    )
    mine = np.stack([found.ratio_start, found.ratio_end], 1).ravel()[keep]
    np.testing.assert_allclose(mine, reference, rtol=1e-9)


def test_an_initial_norm_counts_by_the_rules_power() -> None:
    starts, lr = np.array([0]), np.array([0.1])
    assert relax(SGDM, starts, 10, lr, 2.0).ratio_start[0] == pytest.approx(2.0**-2)
    assert relax(AdamRule(0.1, 0.01), starts, 10, lr, 2.0).ratio_start[0] == pytest.approx(0.5)


@pytest.mark.parametrize("lr", [[0.1, 0.01, 0.05], [0.01, 0.1, 0.02, 0.1, 0.15], [0.1, 0.2]])
def test_rescaling_follows_the_rate_as_the_hook_does(lr: list[float]) -> None:
    """Long before anything relaxes, the hook's own factors say where the norm is."""
    model = torch.nn.Linear(4, 4, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr[0], weight_decay=1e-9)
    hook = EquilibriumRescaling(optimizer, model, {"weight": ()})
    products = []
    for step, rate in enumerate(lr):
        optimizer.param_groups[0]["lr"] = rate
        hook.follow(step)
        products.append(optimizer.state[model.weight].get(RESCALE_KEY, 1.0))
    rule = UpdateRule.from_optimizer(optimizer, optimizer.param_groups[0])
    found = relax(rule, np.arange(len(lr)), len(lr), np.array(lr), rescaled=True)
    norm4 = max(lr) * np.array(products) ** 4
    np.testing.assert_allclose(found.ratio_start, np.sqrt(lr / norm4), rtol=1e-5)


def by_single_steps(rule: UpdateRule, lr: np.ndarray) -> np.ndarray:
    decay = np.full(len(lr), rule.weight_decay)
    return relaxation_ratio(rule, np.arange(len(lr)), lr, decay)


def test_step_from_which_a_stage_is_in_equilibrium() -> None:
    rule, lr = SGDRule(0.1, 1e-2, 0.9), np.repeat([0.1, 0.02], [200, 800])
    found = stages_of(forecast_plan(plan(rule, [0, 200], [0.1, 0.02], 1000)))["2"]
    outside = np.flatnonzero(np.abs(by_single_steps(rule, lr) - 1) > 0.05)
    assert found.within_tolerance_step == outside[-1] + 1
    assert found.ends_in_equilibrium
    assert found.leaves_tolerance_step is None


def test_step_from_which_a_cosine_leaves_equilibrium() -> None:
    rule, steps = SGDRule(0.1, 1e-2, 0.9), 3000
    lr = 0.05 * (1 + np.cos(np.pi * np.arange(steps) / steps))
    found = stages_of(forecast_plan(plan(rule, np.arange(steps), lr, steps)))["1"]
    reference = by_single_steps(rule, lr)
    inside = np.flatnonzero(np.abs(reference - 1) <= 0.05)
    assert found.kind == "falling"
    assert found.leaves_tolerance_step == inside[-1] + 1
    assert found.ratio[1] == pytest.approx(reference[(steps - 1) // 2])
    assert found.ends_in_equilibrium is False


def test_times_needed_is_the_laws_inverse() -> None:
    for ratio in (0.1, 10**-0.5, 1.4):
        after = relaxation_times_needed(ratio)
        end = (1 + (ratio**-2 - 1) * math.exp(-after)) ** -0.5
        assert abs(end - 1) == pytest.approx(0.05)
    assert relaxation_times_needed(0.99) == 0


def test_a_norm_that_is_forgotten_in_time() -> None:
    starts, lr, steps = np.array([0]), np.array([0.1]), 10_000
    passed = (steps - 1) / relaxation_time(SGDM)
    smallest, largest = forgotten_norms(SGDM, passed)
    assert smallest == 0
    assert relax(SGDM, starts, steps, lr, largest).ratio_end[0] == pytest.approx(0.95)
    assert forgotten_norms(SGDM, 3000.0)[1] > 1e300
    early = round(relaxation_time(SGDM))
    smallest, _ = forgotten_norms(SGDM, (early - 1) / relaxation_time(SGDM))
    assert relax(SGDM, starts, early, lr, smallest).ratio_end[0] == pytest.approx(1.05)


def test_rescaling_is_offered_where_it_helps_only() -> None:
    """Weights that begin far too small: what they gain by growing, rescaling takes away."""
    small = plan(AdamRule(0.1, 0.01), [0, 100], [0.1, 0.01], 300, initial_norm=0.05)
    group = forecast_plan(small).groups[0]
    last = group.stages[-1]
    assert abs(last.rescaled_ratio - 1) > abs(last.ratio[-1] - 1)
    assert not any("EquilibriumRescaleHook" in told for told in group.findings)


def test_an_unknown_start_is_not_given_a_number() -> None:
    first = forecast_plan(goyal()).groups[0].stages[0]
    assert first.ratio[0] is None
    assert first.within_tolerance_step is None
    known = forecast_plan(plan(AdamRule(0.1, 0.01), [0], [0.1], 5000, initial_norm=2.0))
    assert known.groups[0].stages[0].ratio[0] == pytest.approx(0.5)
    short = forecast_plan(plan(SGDM, [0], [0.1], 1000))
    assert short.groups[0].stages[0].ratio == (None, None, None)
    assert any("0.4 τ" in finding for finding in short.groups[0].findings)


def test_findings_name_stages_shares_and_remedies() -> None:
    findings = forecast_plan(goyal()).groups[0].findings
    text = "\n".join(findings)
    assert "stages 3 and 4 end at 37 % and 12 % of equilibrium: layers turn too slowly" in text
    assert "stage 2 takes 4.4 τ = 110,564 steps = 22.1 epochs" in text
    assert "stage 3 would need 4.4 τ" in text
    assert "with EquilibriumRescaleHook stages 3 and 4 would end at 100 %" in text
    assert "first gradients under SGD" in text
    rescaled = forecast_plan(goyal(rescaled=True)).groups[0]
    assert all(stage.ratio[-1] == pytest.approx(1) for stage in rescaled.stages)
    assert any("every stage ends within 5 %" in finding for finding in rescaled.findings)


def test_first_update_beside_the_equilibriums() -> None:
    """Adam's and Lion's first update is a sign: η per coordinate, whatever the gradient."""
    rule = AdamRule(1e-3, 0.1, 0.9)
    shared = dict(initial_norm=1.0, initial_rms=0.02)
    text = "\n".join(forecast_plan(plan(rule, [0], [1e-3], 50_000, **shared)).groups[0].findings)
    share = 1e-3 / 0.02
    assert f"{share:.2g} of the weights' norm" in text
    assert f"{share / equilibrium_angle(rule):.2g} × the equilibrium's" in text
    assert "no warmup" in text
    lr = [*np.linspace(1e-5, 1e-3, 100)]
    warm = forecast_plan(plan(rule, range(100), lr, 50_000, **shared)).groups[0]
    assert warm.stages[0].name == "warmup"
    assert "the warmup begins at 0.01 of that" in "\n".join(warm.findings)


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (SGDRule(0.1, 0.0, 0.9), "no weight decay"),
        (AdamRule(0.1, 0.01, decoupled=False), "Adam with L2"),
        ("no prediction for RMSprop", "RMSprop"),
        (SGDRule(30.0, 0.1), "diverges"),
    ],
)
def test_no_equilibrium_is_said_and_has_no_stages(rule: UpdateRule | str, word: str) -> None:
    lr = 0.1 if isinstance(rule, str) else rule.lr
    group = forecast_plan(plan(rule, [0], [lr], 100)).groups[0]
    assert group.stages == ()
    assert word in group.no_prediction
    assert word in str(forecast_plan(plan(rule, [0], [lr], 100)))


def test_a_rotational_rule_is_there_at_once() -> None:
    rule = RotationalRule(0.1, 0.1, 1.0, 0.1, corrected_beta=0.98)
    group = forecast_plan(plan(rule, [0, 50], [0.1, 0.01], 100)).groups[0]
    first, second = group.stages
    assert first.ratio == second.ratio == (1.0, 1.0, 1.0)
    assert first.relaxation_steps == ()
    assert first.length is None
    assert second.equilibrium_angle[0] == pytest.approx(0.1 * rule.peak_angle)
    assert "inverse bias correction" in "\n".join(group.findings)


def test_settings_outside_the_theory_are_found() -> None:
    wild = forecast_plan(plan(SGDRule(0.5, 0.1, 0.9), [0], [0.5], 1000))
    assert "oscillate" in "\n".join(wild.groups[0].findings)
    assert "oscillate" not in "\n".join(forecast_plan(goyal()).groups[0].findings)
    old = forecast_plan(plan(AdamRule(0.1, 0.1, beta2=0.999), [0], [0.1], 1000))
    assert "beta2 lets the optimizer remember" in "\n".join(old.groups[0].findings)
    nesterov = forecast_plan(plan(SGDRule(0.1, 1e-4, 0.9, nesterov=True), [0], [0.1], 9000))
    assert "Nesterov momentum" in "\n".join(nesterov.groups[0].findings)
    assert "Nesterov" not in "\n".join(forecast_plan(goyal()).groups[0].findings)
    clipped = forecast_plan(goyal(clipped_to=35.0))
    assert "clipped to norm 35" in "\n".join(clipped.findings)


def test_nothing_scale_invariant_is_said_before_all_else() -> None:
    layers = Layers(others={"frozen": ("a.weight",), "no norm": ("b.weight", "c.weight")})
    found = forecast_plan(goyal(layers=layers))
    assert found.layers.verdict == "none"
    assert found.findings[0].startswith("nothing is scale-invariant, none of 3")
    assert found.findings[1] == "not scale-invariant, no norm (2): b, c"
    assert found.groups[0].findings == ()
    assert "what a scale-invariant weight would do" in found.findings[0]
    turned = RotationalRule(0.1, 0.1, 1.0, 0.1)
    told = forecast_plan(plan(turned, [0], [0.1], 100, layers=layers)).findings[0]
    assert told.endswith("what the optimizer turns by a set angle need not be")
    unsure = Layers(unknown={"its head does not run": ("a.weight",)})
    assert unsure.verdict == Layers(note="not built").verdict == "unknown"


def test_json_holds_what_is_known_and_nothing_that_json_lacks() -> None:
    zero = plan(SGDM, [0, 50], [0.1, 0.0], 100)
    for found in (forecast_plan(goyal()), forecast_plan(coco()), forecast_plan(zero)):
        record = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert record["groups"][0]["rule"]["type"] == "SGD"
        assert record["layers"]["verdict"] == "some"
        names = [stage["name"] for stage in record["groups"][0]["stages"]]
        assert names == list(stages_of(found))


def test_rendering_shows_every_stage_and_finding() -> None:
    found = forecast_plan(goyal())
    text = str(found)
    for stage in found.groups[0].stages:
        assert f"{stage.first_step}–{stage.last_step}" in text
        assert f"{stage.ratio[-1]:.3f}" in text
    flat = " ".join(text.replace("\n  ", " ").split())
    assert all(finding in flat for finding in found.groups[0].findings)
    assert "450,360 steps, 90 epochs of 5004" in text


def test_a_rate_for_every_step_takes_no_time() -> None:
    steps = 450_000
    lr = 0.05 * (1 + np.cos(np.pi * np.arange(steps) / steps))
    began = time.perf_counter()
    forecast_plan(plan(SGDM, np.arange(steps), lr, steps))
    assert time.perf_counter() - began < 5  # a tenth of that on a quiet core


def test_a_plan_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="begin at 0"):
        plan(SGDM, [1, 2], [0.1, 0.01], 100)
    with pytest.raises(ValueError, match="begin at 0"):
        plan(SGDM, [0, 100], [0.1, 0.01], 100)
    with pytest.raises(ValueError, match="one learning rate per stretch"):
        plan(SGDM, [0, 10], [0.1], 100)
