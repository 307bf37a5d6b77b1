"""At no moment is there a half-written checkpoint under a checkpoint's name, nor none to resume."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.errors import UsageError
from benchmarks.launch.checkpoint_files import (
    is_whole,
    latest_checkpoint,
    put_in_place,
    read_meta,
    remove_parts,
    write_pointer,
)


def write(path: Path, iteration: int, **content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {"iter": iteration, "seed": 3}
    torch.save({"meta": meta, "optimizer": {}, "w": torch.zeros(4000), **content}, path)
    return path


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def damage(path: Path) -> None:
    """Zero some bytes in the middle, as a network file system that lost a page does."""
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\x01" * 64)


def _fail_in_the_middle(path: Path) -> None:
    with put_in_place(path) as beside:
        beside.write_text("ne")
        raise OSError("full")


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(OSError, match="full"):
        _fail_in_the_middle(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "old"
    with put_in_place(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "new"


def test_only_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    for name in (".iter_5.pth.part", ".claim", "iter_5.pth", "x.part"):
        (tmp_path / name).touch()
    remove_parts(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".claim", "iter_5.pth", "x.part"]


@pytest.mark.parametrize("break_it", [cut, damage, os.remove])
def test_a_checkpoint_that_is_not_whole(tmp_path: Path, break_it: Any) -> None:
    path = write(tmp_path / "iter_5.pth", 5)
    assert is_whole(path)
    break_it(path)
    assert not is_whole(path)


def test_the_one_that_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "iter_5.pth", 5)
    write(tmp_path / "iter_9.pth", 9)
    write_pointer(tmp_path, str(path))
    assert latest_checkpoint(tmp_path) == (path, "")
    assert read_meta(path)["seed"] == 3


def test_a_work_dir_that_was_moved(tmp_path: Path) -> None:
    path = write(tmp_path / "iter_5.pth", 5)
    write_pointer(tmp_path, "/where/it/was/iter_5.pth")
    assert latest_checkpoint(tmp_path) == (path, "")


@pytest.mark.parametrize(
    ("break_it", "says"), [(cut, "is cut off or damaged"), (os.remove, "is not there")]
)
def test_the_furthest_that_is_whole(tmp_path: Path, break_it: Any, says: str) -> None:
    named = write(tmp_path / "iter_20.pth", 20)
    write_pointer(tmp_path, str(named))
    best = tmp_path / "best_top1_iter_19.pth"
    torch.save({"meta": {"iter": 19}}, best)  # as MMEngine saves it: no optimizer
    cut(write(tmp_path / "iter_15.pth", 15))
    second = write(tmp_path / "iter_10.pth", 10)
    write(tmp_path / "iter_5.pth", 5)
    break_it(named)
    path, warning = latest_checkpoint(tmp_path)
    assert path == second
    assert says in warning
    assert "iteration 10" in warning
    assert "\n" not in warning


@pytest.mark.parametrize("pointer", [None, ""])
def test_without_a_pointer(tmp_path: Path, pointer: str | None) -> None:
    assert latest_checkpoint(tmp_path) == (None, "")
    if pointer is not None:
        (tmp_path / "last_checkpoint").write_text(pointer)
    path = write(tmp_path / "iter_5.pth", 5)
    found, warning = latest_checkpoint(tmp_path)
    assert found == path
    assert "no last_checkpoint" in warning
    cut(path)
    found, warning = latest_checkpoint(tmp_path)
    assert found is None
    assert "starting anew" in warning


def test_one_is_named_and_nothing_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "iter_5.pth", 5)
    write_pointer(tmp_path, str(path))
    cut(path)
    with pytest.raises(UsageError, match="is cut off or damaged, and no other") as refused:
        latest_checkpoint(tmp_path)
    assert "\n" not in str(refused.value)


def test_half_of_a_path_names_no_folder_to_go_on_from(tmp_path: Path) -> None:
    """A pointer that is cut off may name the folder above, and what lies there is another's."""
    write(tmp_path / "iter_900.pth", 900)
    work_dir = tmp_path / "run"
    whole = write(work_dir / "iter_5.pth", 5)
    (work_dir / "last_checkpoint").write_text(str(work_dir))
    found, warning = latest_checkpoint(work_dir)
    assert found == whole
    assert "going on from" in warning
