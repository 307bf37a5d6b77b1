from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from benchmarks.replicas.scaling import SHORTEST
from benchmarks.sweep.studies import studies_of
from benchmarks.sweep.suite import ReplicaPart, Suite, load_suite
from smd_hooks.analysis.claims.ledger import CLAIMS
from smd_hooks.planning.layers import judge_layers
from tests.conftest import ROOT

SUITES = sorted((ROOT / "suites").glob("*.py"))
IDS = [path.stem for path in SUITES]


@pytest.fixture(params=SUITES, ids=IDS)
def suite(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Suite:
    monkeypatch.chdir(ROOT)
    path: Path = request.param
    return load_suite(path)


def test_claims_are_the_ledgers(suite: Suite) -> None:
    for experiment in suite.experiments:
        known = [claim.name for claim in CLAIMS if claim.experiment == experiment.name]
        assert list(experiment.claims) == known


def test_claims_are_about_roles_that_are_run(suite: Suite) -> None:
    for experiment in suite.experiments:
        controls = (
            experiment.replica.controls if isinstance(experiment.replica, ReplicaPart) else {}
        )
        roles = {*experiment.configs, *controls}
        seeds = {role: len(experiment.seeds) if role in experiment.configs else 1 for role in roles}
        for claim in CLAIMS:
            if claim.experiment == experiment.name:
                assert {*claim.roles} <= roles, claim.name
                assert all(claim.seeds <= seeds[role] for role in claim.roles), claim.name


def test_every_experiment_that_a_claim_is_about_is_in_one_suite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    counts = Counter(e.name for path in SUITES for e in load_suite(path).experiments)
    assert {claim.experiment for claim in CLAIMS} == {*counts}
    assert set(counts.values()) == {1}


def test_a_suite_is_plain_data(suite: Suite) -> None:
    assert all(experiment.figure and experiment.seeds for experiment in suite.experiments)
    for experiment in suite.experiments:
        assert len(set(experiment.configs.values())) == len(experiment.configs)


@pytest.mark.slow
def test_every_experiment_with_a_replica_can_be_scaled(suite: Suite) -> None:
    studies, not_run = studies_of(suite, [], [], [], [])
    without = {one.name for one in suite.experiments if isinstance(one.replica, str)}
    assert {*not_run} == without
    assert {study.experiment.name for study in studies} | without == {
        experiment.name for experiment in suite.experiments
    }
    for study in studies:
        part = study.experiment.replica
        assert isinstance(part, ReplicaPart)
        assert [*study.sources] == [*study.experiment.configs, *part.controls]
        assert all("steps for" in source.scale for source in study.sources.values())


TURNING = ("rotational-sgd", "rotational-adamw", "lionar")


@pytest.mark.parametrize("name", ["optimizers-imagenet", "optimizers-mask-rcnn"])
def test_weights_that_are_not_scale_invariant_keep_their_decay(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where they turn by an angle instead, it is scaled as that of the others is."""
    monkeypatch.chdir(ROOT)
    suite = load_suite(ROOT / "suites" / "normalized_optimizers.py")
    study = studies_of(suite, [name], [], [], [])[0][0]
    for role, path in study.experiment.configs.items():
        config = study.sources[role].config
        with DefaultScope.overwrite_default_scope(config.default_scope):
            model = MODELS.build(config.model)
        names = [name for name, _ in model.named_parameters()]
        layers = judge_layers(model)
        keys = config.optim_wrapper.paramwise_cfg.get("custom_keys") or {}
        kept = {key for key, options in keys.items() if "decay_mult" in options}
        if role in TURNING:  # those that the config itself keeps from turning
            assert kept == {key for key, options in keys.items() if "rotational" in options}
        else:
            others = [n for names in layers.others.values() for n in names]
            assert {key for key in kept if any(key in n for n in layers.invariant)} == set()
            assert [n for n in others if not any(key in n for key in kept)] == []
            assert all(any(key in n for n in names) for key in kept)
        full = Config.fromfile(path).optim_wrapper.optimizer.weight_decay
        decay = config.optim_wrapper.optimizer.weight_decay
        assert decay > 40 * full
        for key in kept:
            assert decay * keys[key]["decay_mult"] == pytest.approx(full)


def test_adamws_replica_sets_parameters_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    suite = load_suite(ROOT / "suites" / "rotational_equilibrium.py")
    study = studies_of(suite, ["re-adamw-stages"], [], [], [])[0][0]
    config = study.sources["rescaled"].config
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(config.model)
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    for key in config.optim_wrapper.paramwise_cfg.custom_keys:
        assert any(key in name for name in shapes), key
    assert max(shape[0] for shape in shapes.values()) == 64
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 0.1, 0.1)
    # the relaxation time that replicas have at least, 1 / (2 · lr · weight decay), is kept
    assert 1 / (2 * optimizer.lr * optimizer.weight_decay) == pytest.approx(SHORTEST)
