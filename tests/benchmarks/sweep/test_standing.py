from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config

from benchmarks.errors import UsageError
from benchmarks.launch.claim import CLAIM_FILE
from benchmarks.launch.finite_loss_hook import NOT_FINITE
from benchmarks.sweep.plan import SweepRun
from benchmarks.sweep.sources import Source
from benchmarks.sweep.standing import Standing, differences, plain, runs_below, standing_of
from smd_hooks.analysis.reading.config_literals import read_config
from smd_hooks.records import RunState, write_state
from smd_hooks.records.schema import FOLDER, STATE_FILE, write_json
from smd_hooks.records.state import DEAD_AFTER
from tests.analysis.work_dirs import launch
from tests.benchmarks.sweep.small import CONFIG
from tests.conftest import ROOT


def planned(lr: float = 0.1) -> SweepRun:
    config = Config.fromstring(CONFIG.format(lr=lr, steps=10), ".py")
    return SweepRun("first", "plain", 3, Source(config, "config.py"))


def write_run(root: Path, state: RunState | None, checkpoint: bool, lr: float = 0.1) -> None:
    config = planned(lr).config
    config.merge_from_dict({"work_dir": str(root), "resume": True, "launcher": "none"})
    folder = launch(root / planned().name, "20260101_000000", config=config.pretty_text)
    if state:
        write_state(folder, state)
    if checkpoint:
        (folder.parent / "last_checkpoint").write_text("somewhere")


FINISHED = RunState("finished", 10, 10)
DIVERGED = RunState("failed", 5, 10, f"{NOT_FINITE} since iteration 5")
BROKEN = RunState("failed", 5, 10, "a broken image")


@pytest.mark.parametrize(
    ("state", "checkpoint", "standing"),
    [
        (FINISHED, True, Standing.FINISHED),
        (DIVERGED, True, Standing.DIVERGED),
        (DIVERGED, False, Standing.DIVERGED),
        (BROKEN, True, Standing.UNFINISHED),
        (RunState("running", 5, 10), True, Standing.RUNNING),
        (RunState("running", 5, 10), False, Standing.RUNNING),
        (None, False, Standing.UNFINISHED),
    ],
)
def test_standing_is_read_off_records(
    tmp_path: Path, state: RunState | None, checkpoint: bool, standing: Standing
) -> None:
    assert standing_of(planned(), None) is Standing.NEW
    write_run(tmp_path, state, checkpoint)
    assert standing_of(planned(), runs_below(tmp_path)[planned().name]) is standing
    assert standing.is_over is (standing in (Standing.FINISHED, Standing.DIVERGED))
    assert standing.is_to_train is (standing is Standing.UNFINISHED)


def test_a_claim_says_more_than_records(tmp_path: Path) -> None:
    """One that was killed a moment ago says that it runs; one that has just begun says nothing."""
    assert standing_of(planned(), None, taken=True) is Standing.RUNNING
    for state in (FINISHED, BROKEN, DIVERGED, RunState("running", 5, 10)):
        root = tmp_path / state.error / state.status
        write_run(root, state, True)
        run = runs_below(root)[planned().name]
        assert standing_of(planned(), run, taken=True) is Standing.RUNNING
    (run.folder / CLAIM_FILE).touch()  # its owner is dead, else it were taken
    assert standing_of(planned(), run) is Standing.UNFINISHED


@pytest.mark.parametrize("launches", [1, 2])
def test_other_weights_to_begin_from_are_another_config(tmp_path: Path, launches: int) -> None:
    """Only the first launch tells: one that goes on is told to load what it left itself."""

    def began_from(weights: str | None) -> SweepRun:
        run = planned()
        run.source.config.merge_from_dict({"load_from": weights})
        return run

    for launched in range(launches):
        config = began_from(None if launched else "imagenet.pth").config
        config.merge_from_dict({"resume": bool(launched), "work_dir": "."})
        stamp = f"20260101_00000{launched}"
        folder = launch(tmp_path / planned().name, stamp, config=config.pretty_text)
        write_state(folder, FINISHED)
    run = runs_below(tmp_path)[planned().name]
    assert standing_of(began_from("imagenet.pth"), run) is Standing.FINISHED
    for other in ("coco.pth", None):
        with pytest.raises(UsageError, match=f"load_from = 'imagenet.pth', .* now has '?{other}"):
            standing_of(began_from(other), run)


def test_one_that_says_nothing_any_more_is_not_running(tmp_path: Path) -> None:
    write_run(tmp_path, RunState("running", 5, 10), True)
    [folder] = tmp_path.glob("*/2026*")
    long_ago = {"status": "running", "updated": time.time() - DEAD_AFTER - 1}
    write_json(folder / FOLDER / STATE_FILE, long_ago)
    run = runs_below(tmp_path)[planned().name]
    assert standing_of(planned(), run) is Standing.UNFINISHED


@pytest.mark.parametrize(
    ("state", "checkpoint", "refused"),
    [
        (FINISHED, False, True),
        (DIVERGED, False, True),
        (BROKEN, True, True),
        (BROKEN, False, False),
    ],
)
def test_another_config_is_refused_where_something_would_be_lost(
    tmp_path: Path, state: RunState, checkpoint: bool, refused: bool
) -> None:
    write_run(tmp_path, state, checkpoint, lr=0.3)
    run = runs_below(tmp_path)[planned().name]
    if not refused:
        assert standing_of(planned(), run) is Standing.UNFINISHED
        return
    with pytest.raises(UsageError) as caught:
        standing_of(planned(), run)
    assert "was run with optim_wrapper.optimizer.lr = 0.3, the suite now has 0.1" in str(
        caught.value
    )
    assert "another --work-dir" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1, "work_dir": "x", "resume": True}, {"a": 1, "work_dir": "y"}, []),
        ({"a": (1, 2)}, {"a": [1, 2]}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": 1}, {"a": 1.5}, ["a"]),
        ({"a": True}, {"a": 1}, ["a"]),
        ({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 3}]}}, ["a.b[1].c"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a"]),
        ({"a": {"b": 1}}, {"a": 1}, ["a"]),
        ({"a": 1}, {"b": 1}, ["a", "b"]),
        ({"a": float("nan")}, {"a": float("nan")}, []),
    ],
)
def test_differences_are_named_by_their_path(old: dict, new: dict, where: list[str]) -> None:
    assert [path for path, *_ in differences(old, new)] == where


def test_what_no_dump_gives_back_is_not_compared() -> None:
    new = plain(Config({"hook": {"type": SweepRun, "every": 3}, "names": {"a", "b"}}))
    assert list(differences({"hook": {"type": "SweepRun", "every": 3}, "names": ["b"]}, new)) == []
    assert [p for p, *_ in differences({"hook": {"type": "SweepRun", "every": 4}}, new)] == [
        "hook.every"
    ]


DUMPED: dict[str, Callable[[Config], object]] = {
    "as it is": lambda config: None,
    "changed": lambda config: config.merge_from_dict({"train_cfg.max_epochs": 7}),
}


@pytest.mark.parametrize("change", DUMPED)
@pytest.mark.parametrize(
    "name",
    ["configs/imagenet/resnet50_goyal_8xb32-90e.py", "configs/coco/retinanet_r50_fpn_1x_coco.py"],
)
def test_a_config_equals_its_dump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: str
) -> None:
    monkeypatch.chdir(ROOT)
    config = Config.fromfile(name, import_custom_modules=False)
    config.dump(tmp_path / "dumped.py")
    read = read_config(tmp_path / "dumped.py").values
    DUMPED[change](config)
    found = [path for path, *_ in differences(read, plain(config))]
    assert found == (["train_cfg.max_epochs"] if change == "changed" else [])
