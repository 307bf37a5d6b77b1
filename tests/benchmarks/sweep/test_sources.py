from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from benchmarks.errors import UsageError
from benchmarks.replicas import Replica, Target
from benchmarks.sweep import sources
from benchmarks.sweep.sources import find_targets, full_size, replicas
from benchmarks.sweep.studies import studies_of
from benchmarks.sweep.suite import ReplicaPart
from tests.benchmarks.sweep.small import experiment, suite_of, write_config

SCALE = "classification by 2: 10 steps for 20; batch 4 for 8"
DECAY = "optim_wrapper.optimizer.weight_decay"
SMALL = Target("classification", True, lambda config: (config, "a small net"))
OWN = Target("classification", False, lambda config: (config, "its own net"))


@pytest.fixture(autouse=True)
def scaled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, ...]]:
    """``time_scale`` that scales nothing; what it is asked for: longest, validations, fastest."""
    asked: list[tuple[float, ...]] = []

    def time_scale(
        configs: Mapping[str, Config],
        target: Target,
        longest: float,
        validations: int,
        fastest: float,
    ) -> Any:
        asked.append((longest, validations, fastest))
        what = f"{target.task} by 2"
        return {role: Replica(config, what, 20, 8, {}, ()) for role, config in configs.items()}

    monkeypatch.setattr(sources, "time_scale", time_scale)
    return asked


def test_what_a_suite_sets_in_replicas(tmp_path: Path, scaled: list[tuple[float, ...]]) -> None:
    part = {
        "longest": 13,
        "validations": 7,
        "fastest": 30,
        "options": {"": {"model.a": 1, "model.b": 1}, "other": {"model.b": 2}},
        "embedded_options": {"": {"model.width": {"in": 4}}},
        "controls": {"wrong": {"of": "plain", "options": {"model.b": 3, DECAY: 0.5}}},
    }
    one = suite_of(tmp_path, experiment(tmp_path, replica=part)).experiments[0]
    assert isinstance(one.replica, ReplicaPart)
    originals = full_size(one, ())
    found = replicas(one, one.replica, originals, SMALL, ["model.c=5"])
    assert scaled == [(13, 7, 30)]
    assert list(found) == ["plain", "other", "wrong"]
    models = {role: dict(source.config.model) for role, source in found.items()}
    common = {"type": "Net", "a": 1, "c": 5, "width": {"in": 4}}
    assert models["plain"] == {**common, "b": 1}
    assert models["other"] == {**common, "b": 2}
    assert models["wrong"] == {**common, "b": 3}
    decays = {r: s.config.optim_wrapper.optimizer.weight_decay for r, s in found.items()}
    assert decays == {"plain": 1e-4, "other": 1e-4, "wrong": 0.5}
    assert found["wrong"].path == one.configs["plain"]
    start = f"{SCALE}; besides, model.a=1"
    width = "model.width={'in': 4}"
    assert found["plain"].scale == f"{start}, model.b=1, {width}, model.c=5"
    assert found["wrong"].scale == f"{start}, model.b=3, {width}, {DECAY}=0.5, model.c=5"
    assert all(source.is_replica for source in found.values())
    assert not any(source.is_replica for source in originals.values())
    assert dict(originals["plain"].config.model) == {"type": "Net"}
    large = replicas(one, one.replica, originals, OWN, [])
    assert dict(large["plain"].config.model) == {"type": "Net", "a": 1, "b": 1}


def test_a_replica_without_settings_says_its_scale_only(tmp_path: Path) -> None:
    one = suite_of(tmp_path, experiment(tmp_path)).experiments[0]
    assert isinstance(one.replica, ReplicaPart)
    found = replicas(one, one.replica, full_size(one, ()), SMALL, [])
    assert {source.scale for source in found.values()} == {SCALE}


def test_steps_and_batch_are_told_as_they_are_after_all_options(tmp_path: Path) -> None:
    part = {"options": {"": {"train_dataloader.batch_size": 2}}}
    one = suite_of(tmp_path, experiment(tmp_path, replica=part)).experiments[0]
    assert isinstance(one.replica, ReplicaPart)
    found = replicas(one, one.replica, full_size(one, ()), SMALL, ["train_cfg.max_iters=5"])
    assert found["plain"].scale == (
        "classification by 2: 5 of 10 steps for 20; batch 2 for 8; "
        "besides, train_dataloader.batch_size=2, train_cfg.max_iters=5"
    )


def test_what_several_keys_are_set_to_is_told_once(tmp_path: Path) -> None:
    part = {"options": {"": {"model.keys": {"a.b": {"decay": 2}, "c": {"decay": 2}}}}}
    one = suite_of(tmp_path, experiment(tmp_path, replica=part)).experiments[0]
    assert isinstance(one.replica, ReplicaPart)
    found = replicas(one, one.replica, full_size(one, ()), SMALL, [])
    assert found["plain"].scale == f"{SCALE}; besides, model.keys={{'decay': 2}} for a.b, c"


def test_options_of_the_user_reach_full_size(tmp_path: Path) -> None:
    one = suite_of(tmp_path, experiment(tmp_path)).experiments[0]
    found = full_size(one, [f"{DECAY}=0.25"])
    assert [s.config.optim_wrapper.optimizer.weight_decay for s in found.values()] == [0.25, 0.25]
    assert {source.scale for source in found.values()} == {f"with {DECAY}=0.25"}
    assert {source.scale for source in full_size(one, ()).values()} == {""}


def test_experiments_without_replica_or_data_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "folder_target", lambda folder: OWN)
    detector = Path(write_config(tmp_path, "detector"))
    with open(detector, "a") as file:
        file.write("val_evaluator = dict(type='CocoMetric')\n")
    suite = suite_of(
        tmp_path,
        experiment(tmp_path, "first", replica={"seeds": [8]}),
        experiment(tmp_path, "second", replica="too large"),
        experiment(tmp_path, "third", runs={"plain": str(detector)}),
    )
    studies, not_run = studies_of(suite, [], [], [tmp_path], [])
    assert [study.experiment.name for study in studies] == ["first"]
    assert studies[0].seeds == (8,)
    assert studies[0].scales == [f"plain, other: {SCALE}"]
    assert not_run == {
        "second": "no replica: too large",
        "third": "no data set for detection is given",
    }
    studies, not_run = studies_of(suite, [], [4], None, [])
    assert [(study.experiment.name, study.seeds) for study in studies] == [
        *(("first", [4]), ("second", [4]), ("third", [4])),
    ]
    assert not_run == {}


def test_targets_by_task(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = find_targets([])
    assert {task: target.embedded for task, target in targets.items()} == {
        "classification": True,
        "detection": True,
        "language": True,
    }
    monkeypatch.setattr(sources, "folder_target", lambda folder: OWN)
    assert find_targets([Path("a")]) == {"classification": OWN}
    with pytest.raises(UsageError, match="--replica b: a second data set for classification"):
        find_targets([Path("a"), Path("b")])
