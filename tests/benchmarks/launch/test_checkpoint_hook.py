"""However a run is killed, a checkpoint to go on from is there, and none too many."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook

from benchmarks.launch.checkpoint_files import is_whole, latest_checkpoint
from benchmarks.launch.checkpoint_hook import (
    INTERRUPTED,
    SafeCheckpointHook,
    in_place_of_mmengines,
)
from benchmarks.launch.interrupts import ToldToEnd
from tests.benchmarks.launch.tiny import EPOCHS, ITERATIONS, Tell, tiny_runner

KEEP_ONE = {"interval": 2, "max_keep_ckpts": 1, "save_best": "share", "rule": "greater"}


class Killed(BaseException):
    pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".py")


@pytest.fixture(scope="module")
def left_in_peace(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("peace")
    tiny_runner(folder, ITERATIONS, checkpoint=KEEP_ONE).train()
    return names(folder)


@pytest.mark.parametrize("removal", [1, 2, 3])
def test_killed_before_a_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_in_peace: list[str], removal: int
) -> None:
    """The successor is whole by then, and what was to go goes when the run is resumed."""
    left, remove = removal, LocalBackend.remove

    def killed(self: Any, path: Any) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Killed
        remove(self, path)

    monkeypatch.setattr(LocalBackend, "remove", killed)
    with pytest.raises(Killed):
        tiny_runner(tmp_path, ITERATIONS, checkpoint=KEEP_ONE).train()
    path, warning = latest_checkpoint(tmp_path)
    assert path is not None
    assert warning == ""
    regular = [p for p in tmp_path.glob("iter_*.pth") if is_whole(p)]
    assert len(regular) == 2  # the one that was to go is still there
    tiny_runner(tmp_path, ITERATIONS, resume=True, checkpoint=KEEP_ONE).train()
    assert names(tmp_path) == left_in_peace


@pytest.mark.parametrize("train_cfg", [ITERATIONS, EPOCHS], ids=["iterations", "epochs"])
def test_told_to_end_after_the_last_checkpoint(tmp_path: Path, train_cfg: dict[str, Any]) -> None:
    """What it goes on from then has the regular one's weights, and makes room for it."""
    checkpoint = {"interval": 1, "max_keep_ckpts": 1}
    tiny_runner(tmp_path / "peace", train_cfg, checkpoint=checkpoint).train()
    last = train_cfg.get("max_iters", 18)  # an epoch has 6
    with pytest.raises(ToldToEnd):
        tiny_runner(tmp_path / "told", train_cfg, checkpoint=checkpoint, hooks=[Tell(last)]).train()
    assert (tmp_path / "told" / INTERRUPTED).exists()
    tiny_runner(tmp_path / "told", train_cfg, resume=True, checkpoint=checkpoint).train()
    assert names(tmp_path / "told") == names(tmp_path / "peace")
    (regular,) = (tmp_path / "told").glob("*.pth")
    assert latest_checkpoint(tmp_path / "told") == (regular, "")


def test_control_mmengines_own_removes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr("benchmarks.launch.runner.in_place_of_mmengines", lambda hook: hook)
    runner = tiny_runner(tmp_path, ITERATIONS, checkpoint={"interval": 2, "max_keep_ckpts": 1})
    saved, save = [0], runner.save_checkpoint

    def second_dies(*args: Any, **options: Any) -> None:
        saved[0] += 1
        killed() if saved[0] == 2 else save(*args, **options)

    monkeypatch.setattr(runner, "save_checkpoint", second_dies)
    with pytest.raises(Killed):
        runner.train()
    assert not list(tmp_path.glob("*.pth"))


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put, left = LocalBackend.put, [2]

    def full(self: Any, content: bytes, path: Any) -> None:
        left[0] -= 1
        put(self, content[: len(content) // 2] if left[0] < 0 else content, path)
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalBackend, "put", full)
    with pytest.raises(OSError, match=r"iter_6.pth cannot be written \(No space left on device\)"):
        tiny_runner(tmp_path, ITERATIONS).train()
    assert names(tmp_path)[:2] == ["iter_2.pth", "iter_4.pth"]
    assert latest_checkpoint(tmp_path) == (tmp_path / "iter_4.pth", "")
    assert not list(tmp_path.glob(".*"))


def test_only_mmengines_own_hook_is_replaced() -> None:
    for kind in ("CheckpointHook", "mmengine.CheckpointHook", CheckpointHook):
        config = {"type": kind, "interval": 3, "priority": "LOW"}
        assert in_place_of_mmengines(config) == {**config, "type": SafeCheckpointHook}
    for other in ({"type": "LoggerHook"}, CheckpointHook(interval=2)):
        assert in_place_of_mmengines(other) is other
