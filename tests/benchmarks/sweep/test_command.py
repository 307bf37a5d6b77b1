from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.engines.training import SWEEP_FILE, Training, write_plan
from benchmarks.errors import UsageError
from benchmarks.launch.claim import claimed
from benchmarks.sweep import command
from benchmarks.sweep.arguments import add_arguments, command_line
from smd_hooks.analysis import load_runs
from smd_hooks.records import read_suite
from smd_hooks.records.lease import Lease
from tests.benchmarks.sweep.small import FakeTrainings, experiment, write_config, write_suite_file

LR = "optim_wrapper.optimizer.lr"
TUNE = {"option": "lr", "key": LR, "factors": [0.5, 1, 2], "seed": 9, "metric": "accuracy/top1"}
ROOT = Path("work_dirs/suite")


def sweep(suite: Path, *arguments: str) -> int:
    return main(["sweep", str(suite), *arguments])


def test_a_dry_run_says_what_would_be_run_and_writes_nothing(
    tmp_path: Path, fake: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite_file(
        tmp_path,
        experiment(tmp_path, "first", seeds=[0]),
        experiment(tmp_path, "second", tune=TUNE),
        experiment(tmp_path, "third"),
    )
    assert sweep(suite, "--dry-run", "--only", "first", "second") == 0
    said = capsys.readouterr().out
    assert "first (Fig. 1)\n  each on 1 GPU × 4 images\n  new        first-plain-seed0: " in said
    assert f"second-tune-other-lr0.2-seed9: {tmp_path}/second_other.py {LR}=0.2" in said
    assert "after tuning (3 values of lr × 1 run each" in said
    assert "plain, other, on seeds 0 1" in said
    assert "third: not run, not asked for" in said
    assert not Path("work_dirs").exists()
    assert fake.batches == []


def test_finished_runs_are_not_run_again_and_others_go_on(
    tmp_path: Path, fake: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    fake.ends = {"plain-seed1": "killed"}
    assert sweep(suite) == 1
    assert len(fake.batches[0]) == 4
    assert not any("--resume" in training.options for training in fake.launched.values())
    assert "first-plain-seed1 dead: no word" in capsys.readouterr().out
    assert sweep(suite, "--dry-run") == 0
    assert "unfinished first-plain-seed1" in capsys.readouterr().out
    fake.ends = {}
    assert sweep(suite) == 0
    assert fake.batches[1] == ["first-plain-seed1"]
    assert "--resume" in fake.launched["first-plain-seed1"].options
    assert sweep(suite) == 0
    assert len(fake.batches) == 2


def test_one_that_others_train_is_waited_for(
    tmp_path: Path, fake: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    fake.ends = {"plain-seed1": "alive"}
    waited: list[list[str]] = []

    def wait(trainings: Sequence[Training], is_alive: Callable[[Training], bool]) -> None:
        waited.append([training.name for training in trainings])
        assert [is_alive(training) for training in trainings] == [True]
        fake._end(trainings[0], "finished")
        assert not is_alive(trainings[0])

    monkeypatch.setattr(command, "wait_for_one", wait)
    assert sweep(suite) == 0
    assert waited == [["first-plain-seed1"]]
    assert len(fake.batches) == 1  # it ended well


def test_one_that_others_broke_off_goes_on_here(
    tmp_path: Path, fake: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    work_dir = ROOT / "first-other-seed0"
    work_dir.mkdir(parents=True)
    other = Lease(work_dir / SWEEP_FILE)
    assert other.take()

    def wait(trainings: Sequence[Training], is_alive: Callable[[Training], bool]) -> None:
        assert [training.name for training in trainings] == ["first-other-seed0"]
        fake._end(trainings[0], "broken")
        other.release()

    monkeypatch.setattr(command, "wait_for_one", wait)
    assert sweep(suite) == 0
    assert [len(batch) for batch in fake.batches] == [3, 1]
    assert "--resume" in fake.launched["first-other-seed0"].options


def test_what_is_being_trained_is_told_where_nobody_waits(
    tmp_path: Path, fake: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    assert sweep(suite) == 0
    with claimed(ROOT / "first-plain-seed1"):
        assert sweep(suite, "--dry-run") == 0
        assert "running    first-plain-seed1" in capsys.readouterr().out


def test_slurm_gets_its_options_and_needs_no_gpu_here(
    tmp_path: Path,
    fake: FakeTrainings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[object, ...]] = []

    def train(trainings: Sequence[Training], *options: object) -> list[Training]:
        asked.append(options)
        return fake(trainings)

    monkeypatch.setattr(command.slurm, "train", train)
    monkeypatch.setattr(command, "_visible_gpus", list)
    suite = _made_for_eight(tmp_path)
    assert sweep(suite, "--slurm", "partition=gpu") == 2
    assert "add --engine slurm" in capsys.readouterr().err
    engine = ["--engine", "slurm", "--jobs", "3", "--slurm", "partition=gpu", "time=1:00:00"]
    assert sweep(suite, *engine, "--retries", "5") == 0
    assert asked == [(["partition=gpu", "time=1:00:00"], 3, 5)]


def test_slurm_is_also_asked_for_what_runs_already(
    tmp_path: Path, fake: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of this sweep's last start is waited for in the queue; what is in none, elsewhere."""
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    asked: list[list[tuple[str, bool]]] = []
    mine, others = (ROOT / f"first-{role}-seed0" for role in ("plain", "other"))
    leases = []
    for work_dir in (mine, others):
        work_dir.mkdir(parents=True)
        leases.append(Lease(work_dir / SWEEP_FILE))
        assert leases[-1].take()

    def train(trainings: Sequence[Training], *options: object) -> list[Training]:
        for training in trainings:
            training.elsewhere = training.work_dir == others
        asked.append([(training.name, training.elsewhere) for training in trainings])
        leases[0].release()
        return fake([training for training in trainings if not training.elsewhere])

    def wait(trainings: Sequence[Training], is_alive: Callable[[Training], bool]) -> None:
        assert [training.name for training in trainings] == ["first-other-seed0"]
        fake._end(trainings[0], "finished")
        leases[1].release()

    monkeypatch.setattr(command.slurm, "train", train)
    monkeypatch.setattr(command, "wait_for_one", wait)
    assert sweep(suite, "--engine", "slurm") == 0
    [names] = asked
    assert names[:2] == [("first-plain-seed0", False), ("first-other-seed0", True)]
    assert len(names) == 4


def test_what_an_engine_says_of_a_failure_is_kept(
    tmp_path: Path, fake: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(trainings: Sequence[Training], *options: object) -> list[Training]:
        failed = [training for training in trainings if training.name == "first-plain-seed0"]
        fake([training for training in trainings if training not in failed])
        failed[0].failed = "error: killed before it could say a word"
        write_plan(failed)
        return failed

    monkeypatch.setattr(command, "train", train)
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    assert sweep(suite) == 1
    assert read_suite(ROOT)["first-plain-seed0"].failed.startswith("error: killed before")


def test_a_command_line_is_written_as_it_is_read(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for words in (
        ["suite.py"],
        ["suite.py", "--replica"],
        ["suite.py", "--replica", "data/x", "--seeds", "1", "2", "--retries=0", "--no-train"],
        ["suite.py", "--jobs", "2", "--engine", "slurm", "--slurm", "partition=gpu", "time=1"],
    ):
        args = parser.parse_args(words)
        assert parser.parse_args(command_line(args)) == args
        assert command_line(args) == words


def test_retries_reach_the_engine(
    tmp_path: Path, fake: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple] = []

    def train(trainings: Sequence[Training], *options: object) -> list[Training]:
        given.append(options)
        return fake(trainings)

    monkeypatch.setattr(command, "train", train)
    monkeypatch.setattr(command, "_visible_gpus", list)
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    assert sweep(suite, "--retries", "7", "--jobs", "2") == 0
    assert given == [(2, [], 7)]


def test_a_folder_that_cannot_be_written_to_is_told_in_a_line(
    tmp_path: Path, fake: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    (tmp_path / "file").touch()
    assert sweep(suite, "--work-dir", str(tmp_path / "file" / "here")) == 2
    said = capsys.readouterr().err
    assert "file/here: cannot be written to: Not a directory; choose another" in said
    assert said.count("\n") == 1


EIGHT = "auto_scale_lr = dict(base_batch_size=32)\n"  # of 4 images each


def _made_for_eight(folder: Path) -> Path:
    content = experiment(folder, seeds=[0])
    for path in content["runs"].values():
        with open(path, "a") as file:
            file.write(EIGHT)
    return write_suite_file(folder, content)


@pytest.mark.parametrize(("gpus", "words"), [(0, "0 are"), (1, "1 is"), (7, "7 are")])
def test_full_size_needs_the_gpus_that_its_learning_rate_is_made_for(
    tmp_path: Path,
    fake: FakeTrainings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    gpus: int,
    words: str,
) -> None:
    monkeypatch.setattr(command, "_visible_gpus", lambda: [str(n) for n in range(gpus)])
    suite = _made_for_eight(tmp_path)
    assert sweep(suite) == 2
    said = capsys.readouterr().err
    assert f"error: first is made for 8 GPUs × 4 images, {words} visible: run it where" in said
    assert said.count("\n") == 1
    assert not Path("work_dirs").exists()
    assert fake.batches == []
    assert sweep(suite, "--dry-run") == 0
    assert "  each on 8 GPUs × 4 images\n" in capsys.readouterr().out
    assert sweep(suite, "--no-train") == 0
    # as one says who has other batches
    assert sweep(suite, "--cfg-options", "train_dataloader.batch_size=32") == 0


def test_full_size_is_launched_on_all_its_gpus(
    tmp_path: Path, fake: FakeTrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_visible_gpus", lambda: [str(n) for n in range(8)])
    assert sweep(_made_for_eight(tmp_path)) == 0
    assert {training.processes for training in fake.launched.values()} == {8}
    monkeypatch.setattr(command, "_visible_gpus", lambda: [])
    assert sweep(tmp_path / "suite.py") == 0  # what has finished needs none
    assert len(fake.batches) == 1


def test_gpus_are_called_as_the_environment_calls_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert command._visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    assert command._visible_gpus() == ["5", "3"]


def test_replicas_on_other_data_are_in_another_folder(tmp_path: Path) -> None:
    suite, folders = tmp_path / "smd.py", [tmp_path / "nette", tmp_path / "x" / ".." / "coco"]
    assert command._root(suite.stem, None, None) == Path("work_dirs/smd")
    assert command._root(suite.stem, [], None) == Path("work_dirs/smd-replica")
    assert command._root(suite.stem, folders, None) == Path("work_dirs/smd-replica-nette-coco")
    assert command._root(suite.stem, folders, tmp_path) == tmp_path


def test_one_that_fails_is_told_and_tried_again_next_time(
    tmp_path: Path, fake: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    fake.ends = {"other-seed0": "broken"}
    assert sweep(suite) == 1
    assert "first-other-seed0 failed: a broken image" in capsys.readouterr().out
    fake.ends = {}
    assert sweep(suite) == 0
    assert fake.batches[1] == ["first-other-seed0"]


def test_what_diverged_is_not_run_again_and_is_a_failure(
    tmp_path: Path, fake: FakeTrainings
) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    fake.ends = {"other-seed0": "diverged"}
    assert [sweep(suite), sweep(suite)] == [1, 1]
    assert len(fake.batches) == 1


def test_in_a_grid_divergence_is_a_result(tmp_path: Path, fake: FakeTrainings) -> None:
    grid = {"lr": {"key": LR, "values": [0.1, 99]}}
    suite = write_suite_file(tmp_path, experiment(tmp_path, grid=grid))
    fake.ends = {"lr99": "diverged"}
    assert sweep(suite) == 0
    assert len(fake.batches[0]) == 8


def test_a_changed_config_is_refused_before_anything_is_run(
    tmp_path: Path, fake: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    assert sweep(suite) == 0
    write_config(tmp_path, "first_other", lr=0.7)
    capsys.readouterr()
    for arguments in ([], ["--dry-run"], ["--no-train"]):
        assert sweep(suite, *arguments) == 2
        said = capsys.readouterr().err
        assert f"{LR} = 0.1, the suite now has 0.7; take another --work-dir" in said
        assert said.count("\n") == 1
    assert len(fake.batches) == 1
    assert sweep(suite, "--work-dir", str(tmp_path / "elsewhere")) == 0


def test_tuning_comes_first_and_its_best_is_run_on_the_seeds(
    tmp_path: Path, fake: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path, tune=TUNE))
    fake.best = 0.21
    fake.ends = {"tune-other-lr0.2": "diverged"}
    assert sweep(suite) == 0
    assert [len(batch) for batch in fake.batches] == [6, 4]
    assert fake.batches[1] == [
        *("first-plain-lr0.2-seed0", "first-plain-lr0.2-seed1"),
        *("first-other-lr0.1-seed0", "first-other-lr0.1-seed1"),
    ]
    assert "0.2: diverged" in capsys.readouterr().out
    roles = {name: run.role for name, run in read_suite(ROOT).items()}
    assert roles["first-tune-other-lr0.2-seed9"] == "tune-other"
    assert roles["first-other-lr0.1-seed0"] == "other"
    assert sweep(suite) == 0
    assert len(fake.batches) == 2


def test_a_role_that_cannot_be_tuned_is_a_failure(
    tmp_path: Path, fake: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path, tune=TUNE))
    fake.ends = {"tune-other": "diverged"}
    assert sweep(suite) == 1
    assert [len(batch) for batch in fake.batches] == [6, 2]
    assert "first, other: not run on its seeds, for no value was tuned" in capsys.readouterr().out


def test_options_reach_every_run(tmp_path: Path, fake: FakeTrainings) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    given = ["--seeds", "7", "--cfg-options", f"{LR}=0.3", "optim_wrapper.optimizer.momentum=0.5"]
    assert sweep(suite, *given) == 0
    assert fake.batches[0] == ["first-plain-seed7", "first-other-seed7"]
    run = load_runs(ROOT)[0]
    assert run.config["optim_wrapper"]["optimizer"]["lr"] == 0.3
    assert run.config["optim_wrapper"]["optimizer"]["momentum"] == 0.5
    assert sweep(suite, *given) == 0
    assert len(fake.batches) == 1


def test_longest_first(tmp_path: Path, fake: FakeTrainings) -> None:
    runs = {f"r{n}": write_config(tmp_path, f"r{n}", steps=n) for n in (10, 30, 20)}
    suite = write_suite_file(tmp_path, experiment(tmp_path, runs=runs, seeds=[0]))
    sweep(suite)
    assert fake.batches[0] == ["first-r30-seed0", "first-r20-seed0", "first-r10-seed0"]


def test_unknown_experiment(
    tmp_path: Path, fake: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    assert sweep(suite, "--only", "frist") == 2
    assert capsys.readouterr().err == "error: --only frist: suite has first\n"


def test_missing_data_is_found_before_anything_is_run(
    tmp_path: Path,
    fake: FakeTrainings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def check(config: object) -> None:
        raise UsageError("data root data/things does not exist")

    monkeypatch.setattr(command.preflight, "check", check)
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    assert sweep(suite) == 2
    assert capsys.readouterr().err == "error: first: data root data/things does not exist\n"
    assert fake.batches == []


def test_telling_of_what_is_there_trains_nothing(
    tmp_path: Path, fake: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    assert sweep(suite, "--no-train") == 0
    assert f"no run of this suite is in {ROOT}" in capsys.readouterr().out
    sweep(suite, "--seeds", "0")
    assert sweep(suite, "--no-train") == 0
    assert "first-plain" in capsys.readouterr().out
    assert len(fake.batches) == 1


def test_results_have_a_place_before_anything_is_run(
    tmp_path: Path, fake: FakeTrainings, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    assert sweep(suite, "--results", str(suite / "here")) == 2
    assert capsys.readouterr().err == (
        f"error: --results {suite}/here: Not a directory; choose another\n"
    )
    assert fake.batches == []


@pytest.mark.parametrize("jobs", ["0", "-1", "two"])
def test_jobs_are_a_number(tmp_path: Path, jobs: str, fake: FakeTrainings) -> None:
    suite = write_suite_file(tmp_path, experiment(tmp_path))
    with pytest.raises(SystemExit) as ended:
        sweep(suite, f"--jobs={jobs}")
    assert ended.value.code == 2
    assert fake.batches == []
