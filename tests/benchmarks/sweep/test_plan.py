from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from benchmarks.errors import UsageError
from benchmarks.sweep.plan import SweepRun, expand, own_value, tuned_runs
from benchmarks.sweep.sources import Source, full_size
from tests.benchmarks.sweep.small import CONFIG, experiment, suite_of, write_config

LR = "optim_wrapper.optimizer.lr"
TUNE = {"option": "lr", "key": LR, "factors": [0.5, 1], "seed": 9, "metric": "accuracy/top1"}
GRID = {"lr": {"key": LR, "values": [0.1, 51.2]}, "wd": {"key": "a.wd", "values": [1, 2]}}


def source(scale: str = "") -> Source:
    config = Config.fromstring(CONFIG.format(lr=0.1, steps=10), ".py")
    return Source(config, "config.py", scale, is_replica=bool(scale))


def test_every_role_option_and_seed_has_a_run_of_its_own(tmp_path: Path) -> None:
    one = suite_of(tmp_path, experiment(tmp_path, grid=GRID)).experiments[0]
    runs = expand(one, full_size(one, ()), [3, 4])
    assert len({run.name for run in runs}) == len(runs) == 2 * 4 * 2
    assert runs[0].name == "first-plain-lr0.1-wd1-seed3"
    assert runs[-1].name == "first-other-lr51.2-wd2-seed4"
    assert runs[-1].options == {"lr": 51.2, "wd": 2}
    assert runs[-1].config.optim_wrapper.optimizer.lr == 51.2
    assert runs[-1].config.randomness == {"seed": 4}
    assert all(run.explores for run in runs)


def test_factors_multiply_each_configs_own_value(tmp_path: Path) -> None:
    runs = {role: write_config(tmp_path, role, lr) for role, lr in (("a", 0.1), ("b", 0.3))}
    grid = {"lr": {"key": LR, "factors": [1, 8]}}
    one = suite_of(tmp_path, experiment(tmp_path, runs=runs, grid=grid, seeds=[0])).experiments[0]
    found = expand(one, full_size(one, ()), one.seeds)
    assert [run.options["lr"] for run in found] == [0.1, 0.8, 0.3, 2.4]
    assert [run.name for run in found][1::2] == ["first-a-lr0.8-seed0", "first-b-lr2.4-seed0"]


def test_without_options_a_run_is_no_exploration(tmp_path: Path) -> None:
    one = suite_of(tmp_path, experiment(tmp_path)).experiments[0]
    runs = expand(one, full_size(one, ()), one.seeds)
    assert [run.name for run in runs] == [
        *("first-plain-seed0", "first-plain-seed1", "first-other-seed0", "first-other-seed1"),
    ]
    assert not any(run.explores for run in runs)


def test_controls_are_run_on_the_first_seed(tmp_path: Path) -> None:
    one = suite_of(tmp_path, experiment(tmp_path)).experiments[0]
    runs = expand(one, {"plain": source("small"), "wrong": source("small")}, [5, 6])
    assert [run.name for run in runs] == [
        *("first-plain-seed5", "first-plain-seed6", "first-wrong-seed5"),
    ]


def test_tuning_runs_come_first_and_under_another_role(tmp_path: Path) -> None:
    one = suite_of(tmp_path, experiment(tmp_path, tune=TUNE)).experiments[0]
    sources = full_size(one, ())
    trials = expand(one, sources, one.seeds)
    assert [run.name for run in trials] == [
        *("first-tune-plain-lr0.05-seed9", "first-tune-plain-lr0.1-seed9"),
        *("first-tune-other-lr0.05-seed9", "first-tune-other-lr0.1-seed9"),
    ]
    assert all(run.explores for run in trials)
    runs = tuned_runs(one, sources, one.seeds, {"other": 0.05})
    assert [run.name for run in runs] == ["first-other-lr0.05-seed0", "first-other-lr0.05-seed1"]
    assert runs[0].config.optim_wrapper.optimizer.lr == 0.05
    assert not any(run.explores for run in runs)
    assert tuned_runs(suite_of(tmp_path, experiment(tmp_path)).experiments[0], {}, [0], {}) == []


@pytest.mark.parametrize("key", ["optim_wrapper.lr", "model", "optim_wrapper.optimizer.type"])
def test_only_numbers_are_tuned(tmp_path: Path, key: str) -> None:
    tuning = suite_of(tmp_path, experiment(tmp_path, tune={**TUNE, "key": key})).experiments[0]
    assert tuning.tuning is not None
    with pytest.raises(UsageError, match="sets no number"):
        own_value(source(), tuning.tuning, "first, plain")


def test_full_size_is_trained_from_its_own_config(tmp_path: Path) -> None:
    run = SweepRun("first", "plain", 3, source(), {"lr": 0.2}, {LR: 0.2})
    training = run.training(tmp_path, ["model.depth=50"], resume=False)
    assert (training.name, training.config) == ("first-plain-lr0.2-seed3", "config.py")
    assert training.work_dir == tmp_path / "first-plain-lr0.2-seed3"
    assert training.options == ["--seed", "3", "--cfg-options", "model.depth=50", f"{LR}=0.2"]
    planned = training.planned
    assert (planned.experiment, planned.role, planned.scale) == ("first", "plain", "")
    assert planned.options == {"lr": 0.2}
    run.write_config(tmp_path)
    assert not (tmp_path / "configs").exists()


def test_as_many_processes_as_the_learning_rate_is_for() -> None:
    one = source()
    assert SweepRun("first", "plain", 3, one).processes == 1
    one.config.auto_scale_lr = {"base_batch_size": 32}
    run = SweepRun("first", "plain", 3, one)
    assert run.training(Path("runs"), [], resume=False).processes == 8
    assert run.launched_on == "8 GPUs × 4 images"
    other = SweepRun("first", "plain", 3, one, settings={"train_dataloader.batch_size": 16})
    assert other.processes == 2
    replica = Source(one.config, one.path, "small", is_replica=True)
    assert SweepRun("first", "plain", 3, replica).processes == 1


def test_full_size_with_options_says_so_and_is_trained_from_its_own_config(tmp_path: Path) -> None:
    changed = Source(source().config, "config.py", "with model.depth=50")
    training = SweepRun("first", "plain", 3, changed).training(tmp_path, ["model.depth=50"], False)
    assert training.config == "config.py"
    assert training.planned.scale == "with model.depth=50"


def test_a_replica_is_trained_from_a_config_that_is_written(tmp_path: Path) -> None:
    run = SweepRun("first", "plain", 3, source("small"), {"lr": 0.2}, {LR: 0.2})
    training = run.training(tmp_path, ["model.depth=50"], resume=True)
    assert training.options == ["--resume"]
    assert training.planned.scale == "small"
    assert not Path(training.config).exists()
    run.write_config(tmp_path)
    written = Config.fromfile(training.config)
    assert written.optim_wrapper.optimizer.lr == 0.2
    assert written.randomness == {"seed": 3}
    assert run.source.config.optim_wrapper.optimizer.lr == 0.1


def test_detection_is_held_to_take_longer_than_any_classification() -> None:
    def steps(iterations: int, evaluator: str) -> tuple[bool, int]:
        config = Config.fromstring(CONFIG.format(lr=0.1, steps=iterations), ".py")
        config.val_evaluator = {"type": evaluator}
        return SweepRun("first", "plain", 0, Source(config, "config.py")).steps

    classification = steps(9000, "TopKAccuracy"), steps(5000, "TopKAccuracy")
    detection = steps(900, "CocoMetric")
    assert sorted([*classification, detection], reverse=True) == [detection, *classification]


def test_a_training_knows_how_long_it_is_and_what_was_there_when_it_was_planned(
    tmp_path: Path,
) -> None:
    run = SweepRun("first", "plain", 3, source("small"))
    work_dir = tmp_path / run.name
    new = run.training(tmp_path, [], resume=False)
    assert (new.length, new.known, new.options) == (10, "", [])
    (work_dir / "20260101_000000").mkdir(parents=True)
    assert run.training(tmp_path, [], resume=True).known == "20260101_000000"
    run.source.config.merge_from_dict({"train_cfg": {"_delete_": True, "max_epochs": 3}})
    assert run.iterations == 0


def test_a_config_is_never_there_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another sweep's run of the same name may be reading it."""
    run = SweepRun("first", "plain", 3, source("small"))
    run.write_config(tmp_path)
    [path] = (tmp_path / "configs").iterdir()
    before = path.read_text()

    def half(config: Config, file: Path) -> None:
        file.write_text("model = ")
        assert path.read_text() == before

    monkeypatch.setattr(Config, "dump", half)
    run.write_config(tmp_path)
    assert path.read_text() == "model = "
