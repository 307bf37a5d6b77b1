"""Fig. 2 on walks that begin far from equilibrium, and on facts that are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from smd_hooks import load_runs
from smd_hooks.analysis.claims.approach import LAYERS, Approach, approach
from smd_hooks.analysis.claims.claim import CannotTell, Experiment, Finding
from smd_hooks.theory import SGDRule
from tests.analysis.claims.constructed import claim, given, walk
from tests.analysis.diagnosis.test_constructed_runs import groups, noisy, trained
from tests.analysis.work_dirs import launch, weight
from tests.optim.digits import network

RULES = {"sgd": SGDRule(0.2, 5e-3, 0.0), "sgdm": SGDRule(0.2, 2.5e-3, 0.9)}  # τ = 250, 50 steps
CLAIMED = ("gradient", "norm", "angle", "faster", "sooner")
CONTROLS = ("control-classifier", "control-formula")


def write_walk(folder: Path, rule: SGDRule, start: float, steps: int, every: int = 1) -> None:
    """Four layers that walk, and one that turns half as fast and is called a classifier."""
    samples = walk(rule, steps, start)
    last = samples["weight"] == 4
    samples["angular_update"] = np.where(last, 0.5, 1.0) * samples["angular_update"]
    samples["weight_norm"] = np.where(last, 1.5, 1.0) * samples["weight_norm"]
    samples["gradient_norm"] = np.where(last, 1 / 1.5, 1.0) * samples["gradient_norm"]
    samples["gradient_momentum_dot"] *= np.where(last, 1 / 1.5**2, 1.0)
    kept = samples["step"] % every == 0
    entries = [weight(f"conv{i}", rule=rule.to_json()) for i in range(4)]
    entries.append(weight("fc", invariant=False, rule=rule.to_json(), statistic=0.7))
    run = {"first_step": 0, "weights": entries}
    columns = {name: values[kept] for name, values in samples.items()}
    launch(folder, "20260101_000000", samples=columns, run=run)


def experiment(folder: Path) -> Experiment:
    return Experiment("smd-fig2", "", {run.name: [run] for run in load_runs(folder)})


def check(name: str, found: Experiment) -> Finding:
    return claim(f"smd-fig2-{name}").check(found)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("walked")
    for role, rule in RULES.items():
        write_walk(folder / role, rule, 3.0, 3_000)
    return experiment(folder)


@pytest.mark.parametrize("name", [*CLAIMED, *CONTROLS])
def test_walks_show_what_the_figure_shows(walked: Experiment, name: str) -> None:
    found = check(name, walked)
    assert found.holds is True, found.measured
    assert "nan" not in found.measured


def test_the_factor_is_that_of_theory(walked: Experiment) -> None:
    # 250 to 50 steps here; the momentum's finite time makes it a few percent faster
    assert check("faster", walked).measured.startswith("5.")
    assert "(theory 5.00)" in check("faster", walked).measured


def test_gradients_that_do_not_align_tell_nothing_of_the_other_formula(walked: Experiment) -> None:
    with pytest.raises(CannotTell, match="hardly aligned"):
        check("control-gradient-alone", walked)


def test_walks_from_equilibrium_do_not_show_it(tmp_path: Path) -> None:
    for role, rule in RULES.items():
        write_walk(tmp_path / role, rule, 1.0, 3_000)
    found = experiment(tmp_path)
    assert check("norm", found).holds is False
    assert check("angle", found).holds is False
    with pytest.raises(CannotTell, match="sgd: no layer starts at 2 r\\* or more, the largest at"):
        check("faster", found)
    with pytest.raises(CannotTell, match="sgd: no layer starts at 2"):
        check("sooner", found)


def test_sampled_now_and_then_it_is_still_told(tmp_path: Path) -> None:
    for role, rule in RULES.items():
        write_walk(tmp_path / role, rule, 4.0, 3_000, every=5)
    assert check("norm", experiment(tmp_path)).holds is True
    assert check("faster", experiment(tmp_path)).holds is True


@pytest.mark.slow
def test_a_real_net_that_begins_far_above_its_norms(tmp_path: Path) -> None:
    runs = {}
    for role, momentum, steps in (("sgd", 0.0, 6_000), ("sgdm", 0.9, 1_500)):
        torch.manual_seed(0)
        model = network()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 4:
                    parameter *= 8
        optimizer = torch.optim.SGD(groups(model, 0.005), lr=0.1, momentum=momentum)
        runs[role] = [trained(tmp_path / role, model, optimizer, noisy(), steps)]
    found = Experiment("smd-fig2", "", runs)
    for name in (*CLAIMED, *CONTROLS):
        assert check(name, found).holds is True, check(name, found).measured


GOOD = {
    "norm_start": 4.0,
    "norm_end": 1.01,
    "angle_start": 0.1,
    "angle_end": 0.99,
    "norm_end_gradient_alone": 0.9,
    "plain_formula": 0.72,
    "gradient_drift": 0.02,
    "rate": 0.02,
    "predicted_rate": 0.02,
    "arrival": 100.0,
}
SLOWER = {"rate": 0.002, "predicted_rate": 0.002, "arrival": 1000.0}
NEVER = float("nan")


def facts(
    changed: dict[str, float] | None = None,
    others: float = 0.5,
    z2: float = 0.7,
    sgd_arrives: float = 1000.0,
    law: float = 0.15,
) -> Experiment:
    """Three layers each; SGDM's are changed. The law of what no norm follows is SGD's."""

    def of(role: dict[str, float], law: float) -> Approach:
        other = {**GOOD, "norm_end": others, "angle_end": others}
        return Approach(table(role), table(other), z2, law)

    def table(row: dict[str, float]) -> pd.DataFrame:
        return pd.DataFrame([row] * 3, columns=list(LAYERS))

    sgd, sgdm = {**GOOD, **SLOWER, "arrival": sgd_arrives}, {**GOOD, **(changed or {})}
    return given(approach, {"sgd": [of(sgd, law)], "sgdm": [of(sgdm, 0.03)]})


@pytest.mark.parametrize("name", [*CLAIMED, *CONTROLS, "control-gradient-alone"])
def test_given_facts_hold(name: str) -> None:
    assert check(name, facts()).holds is True


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("gradient", {"gradient_drift": 0.11}),
        ("gradient", {"gradient_drift": -0.11}),
        ("gradient", {"gradient_drift": float("nan")}),
        ("norm", {"norm_start": 1.9}),
        ("norm", {"norm_end": 1.06}),
        ("angle", {"angle_start": 0.6}),
        ("angle", {"angle_end": 0.94}),
        ("faster", {"rate": 0.0165}),
        ("faster", {"rate": 0.0235}),
        ("control-formula", {"plain_formula": 1.04}),
        ("control-formula", {"plain_formula": 0.6, "angle_end": 0.8}),
        ("sooner", {"arrival": 501.0}),
        ("sooner", {"arrival": NEVER}),
        ("control-gradient-alone", {"norm_end_gradient_alone": 1.04, "norm_end": 1.2}),
        ("control-gradient-alone", {"norm_end_gradient_alone": 0.9, "norm_end": 1.06}),
    ],
)
def test_what_must_fail(name: str, changed: dict[str, float]) -> None:
    assert check(name, facts(changed)).holds is False


def test_a_run_too_short_for_sgd_does_not_tell_how_much_sooner() -> None:
    assert check("sooner", facts({"arrival": 500.0})).holds is True
    with pytest.raises(CannotTell, match="never arrive: sgd not within the run, sgdm 100 steps"):
        check("sooner", facts(sgd_arrives=NEVER))


def test_fitted_rates_are_called_what_they_are() -> None:
    assert "consistency test" in claim("smd-fig2-faster").criterion
    assert "identity" in claim("smd-fig2-faster").says


def test_a_norm_that_starts_below_counts_as_off() -> None:
    assert check("norm", facts({"norm_start": 0.4})).holds is True


def test_a_classifier_on_theory_is_no_control() -> None:
    for law in (0.05, float("nan")):
        assert check("control-classifier", facts(law=law)).holds is False
    assert check("control-classifier", facts(z2=1e-3)).holds is False
    assert check("control-classifier", facts(z2=float("nan"))).holds is False


def test_without_layers_nothing_can_be_told() -> None:
    empty = Approach(
        pd.DataFrame(columns=list(LAYERS)), pd.DataFrame(columns=list(LAYERS)), 1.0, 1.0
    )
    nothing = given(approach, {"sgd": [empty], "sgdm": [empty]})
    for name in (*CLAIMED, *CONTROLS):
        with pytest.raises(CannotTell, match=r"no (scale-invariant )?weight"):
            check(name, nothing)
