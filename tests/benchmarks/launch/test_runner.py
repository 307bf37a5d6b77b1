"""A run that was told to end and resumed is, bit by bit, the one that never was."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook

from benchmarks.launch.checkpoint_files import is_whole
from benchmarks.launch.checkpoint_hook import INTERRUPTED
from benchmarks.launch.interrupts import ToldToEnd, noticed
from benchmarks.launch.runner import SuiteRunner, later_stamp
from tests.benchmarks.launch.tiny import EPOCHS, ITERATIONS, Tell, tiny_runner, weights_of


def told_and_resumed(
    folder: Path, train_cfg: dict[str, Any], after: int, workers: int = 0
) -> SuiteRunner:
    cut = tiny_runner(folder, train_cfg, hooks=[Tell(after)], workers=workers)
    with pytest.raises(ToldToEnd, match=r"told to end \(SIGTERM\); goes on with --resume"):
        cut.train()
    assert cut.iter == after
    resumed = tiny_runner(folder, train_cfg, resume=True, workers=workers)
    resumed.train()
    return resumed


def validations(folder: Path) -> list[tuple[int, float]]:
    """Step and result of each validation that was logged, of all launches."""
    lines = [
        json.loads(line)
        for path in sorted(folder.glob("*_*/vis_data/scalars.json"))
        for line in path.read_text().splitlines()
    ]
    return [(line["step"], line["share"]) for line in lines if "share" in line]


@pytest.mark.parametrize(
    ("train_cfg", "after"),
    [
        (ITERATIONS, 5),  # between a checkpoint and the next, in mid-accumulation
        (ITERATIONS, 7),  # a validation is due, and has not begun
        (ITERATIONS, 14),  # after the last iteration
        (EPOCHS, 9),  # in the middle of an epoch
        (EPOCHS, 12),  # at its end, before the validation
    ],
)
def test_told_to_end_and_resumed(tmp_path: Path, train_cfg: dict[str, Any], after: int) -> None:
    whole = tiny_runner(tmp_path / "whole", train_cfg)
    whole.train()
    resumed = told_and_resumed(tmp_path / "cut", train_cfg, after)
    assert torch.equal(weights_of(resumed), weights_of(whole))
    assert validations(tmp_path / "cut") == validations(tmp_path / "whole")
    assert not (tmp_path / "cut" / "interrupted.pth").exists() or after == 14


class KilledAfterValidation(Hook):
    priority = "LOWEST"

    def after_val(self, runner: SuiteRunner) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(("train_cfg", "after"), [(ITERATIONS, 7), (EPOCHS, 6)])
def test_killed_after_a_validation_that_was_caught_up(
    tmp_path: Path, train_cfg: dict[str, Any], after: int
) -> None:
    """What was saved as the best so far is gone on from, and not validated again."""
    best = {"checkpoint": {"interval": 1, "save_best": "share", "rule": "greater"}}
    whole = tiny_runner(tmp_path / "whole", train_cfg, **best)
    whole.train()
    with pytest.raises(ToldToEnd):
        tiny_runner(tmp_path / "cut", train_cfg, hooks=[Tell(after)], **best).train()
    for hooks in ([KilledAfterValidation()], []):
        resumed = tiny_runner(tmp_path / "cut", train_cfg, resume=True, hooks=hooks, **best)
        if hooks:
            with pytest.raises(KeyboardInterrupt):
                resumed.train()
            assert resumed.iter == after
        else:
            resumed.train()
    assert torch.equal(weights_of(resumed), weights_of(whole))
    assert validations(tmp_path / "cut") == validations(tmp_path / "whole")


@pytest.mark.slow
def test_with_other_numbers_of_workers(tmp_path: Path) -> None:
    whole = tiny_runner(tmp_path / "whole", EPOCHS)
    whole.train()
    resumed = told_and_resumed(tmp_path / "cut", EPOCHS, 9, workers=2)
    assert torch.equal(weights_of(resumed), weights_of(whole))


@pytest.mark.parametrize("forgotten", ["random state", "draws", "gradients"])
def test_control_what_is_forgotten_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    whole = tiny_runner(tmp_path / "whole", ITERATIONS)
    whole.train()
    if forgotten == "random state":
        monkeypatch.setattr(
            "benchmarks.launch.runner.restore_random_state", lambda state: torch.manual_seed(7)
        )
    elif forgotten == "draws":
        monkeypatch.setattr("benchmarks.launch.loops.number_draws", lambda *_: None)
        whole = tiny_runner(tmp_path / "whole, too", ITERATIONS)
        whole.train()
    else:
        monkeypatch.setattr("benchmarks.launch.resume_point.gradients_so_far", lambda *_: {})
    resumed = told_and_resumed(tmp_path / "cut", ITERATIONS, 5)
    assert not torch.equal(weights_of(resumed), weights_of(whole))


def test_a_drawn_seed_is_kept(tmp_path: Path) -> None:
    cut = tiny_runner(tmp_path, ITERATIONS, hooks=[Tell(3)], seed=None)
    with pytest.raises(ToldToEnd):
        cut.train()
    resumed = tiny_runner(tmp_path, ITERATIONS, resume=True, seed=None)
    assert resumed.seed == cut.seed
    anew = tiny_runner(tmp_path, ITERATIONS, seed=None)
    assert anew.seed != cut.seed


def test_a_run_without_a_checkpoint_hook_says_so(tmp_path: Path) -> None:
    runner = tiny_runner(tmp_path, ITERATIONS, hooks=[Tell(3)])
    runner._hooks = [hook for hook in runner.hooks if "Checkpoint" not in type(hook).__name__]
    with pytest.raises(ToldToEnd, match="no CheckpointHook, so nothing is saved") as told:
        runner.train()
    assert not told.value.resumable
    assert not list(tmp_path.glob("*.pth"))


class OwnCheckpointHook(CheckpointHook):
    pass


def test_any_checkpoint_hook_will_do(tmp_path: Path) -> None:
    own: dict[str, Any] = {"type": OwnCheckpointHook, "by_epoch": False, "interval": 2}
    whole = tiny_runner(tmp_path / "whole", ITERATIONS, checkpoint=own)
    whole.train()
    with pytest.raises(ToldToEnd) as told:
        tiny_runner(tmp_path / "cut", ITERATIONS, checkpoint=own, hooks=[Tell(5)]).train()
    assert told.value.resumable
    resumed = tiny_runner(tmp_path / "cut", ITERATIONS, resume=True, checkpoint=own)
    resumed.train()
    assert resumed._resume_from == tmp_path / "cut" / INTERRUPTED
    assert torch.equal(weights_of(resumed), weights_of(whole))


class ToldAgain(Hook):
    def before_save_checkpoint(self, runner: SuiteRunner, checkpoint: dict) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_who_is_told_again_while_saving_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.launch.interrupts.INSISTS_AFTER", 0.0)
    never = {"interval": -1}
    runner = tiny_runner(tmp_path, ITERATIONS, checkpoint=never, hooks=[Tell(5), ToldAgain()])
    with noticed() as runner.notice:
        runner.notice._heard[signal.SIGTERM] = 0.0  # long ago
        with pytest.raises((ToldToEnd, KeyboardInterrupt)) as end:
            runner.train()
    assert end.type is ToldToEnd
    assert is_whole(tmp_path / INTERRUPTED)


def test_mmengine_warns_of_lost_gradients_only_where_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def warned(folder: Path) -> bool:
        caplog.clear()
        runner = tiny_runner(folder, ITERATIONS, resume=True)
        runner.logger.addHandler(caplog.handler)
        runner.train()
        return any("gradient of some iterations is lost" in line for line in caplog.messages)

    with pytest.raises(ToldToEnd):
        tiny_runner(tmp_path / "kept", ITERATIONS, hooks=[Tell(5)]).train()
    lost = shutil.copytree(tmp_path / "kept", tmp_path / "lost")
    content = torch.load(lost / INTERRUPTED, weights_only=False)
    content["benchmarks"]["gradients"] = {}
    torch.save(content, lost / INTERRUPTED)
    (lost / "last_checkpoint").write_text(str(lost / INTERRUPTED))
    assert not warned(tmp_path / "kept")
    assert warned(lost)


def test_a_config_stays_as_it_is(tmp_path: Path) -> None:
    runner = tiny_runner(tmp_path, ITERATIONS)
    runner.train()
    assert runner.cfg.train_cfg == ITERATIONS
    assert "Exact" not in runner.cfg.pretty_text
    assert type(runner.train_loop).__name__ == "ExactIterLoop"


@pytest.mark.parametrize(
    ("there", "now", "stamp"),
    [
        ([], "20260131_235959", "20260131_235959"),
        (["20260131_235958"], "20260131_235959", "20260131_235959"),
        (["20260131_235959"], "20260131_235959", "20260201_000000"),  # within one second
        (["20260131_235959", "20250101_000000"], "20260115_120000", "20260201_000000"),
        (["20261399_000000", "best_model"], "20260101_000000", "20260101_000000"),
    ],
)
def test_a_launch_is_later_than_all_before(
    tmp_path: Path, there: list[str], now: str, stamp: str
) -> None:
    for name in there:
        (tmp_path / name).mkdir()
    assert later_stamp(tmp_path, now) == stamp


def test_several_launches_within_a_second_have_folders_in_order(tmp_path: Path) -> None:
    folders = [tiny_runner(tmp_path, ITERATIONS).log_dir for _ in range(3)]
    assert sorted(set(folders)) == folders
