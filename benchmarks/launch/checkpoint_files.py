"""Checkpoint files: put in place whole, told from broken ones, and found again."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks.errors import UsageError

POINTER = "last_checkpoint"
"""MMEngine's file in the work dir that names the checkpoint to go on from."""
_PART = ".part"


@contextmanager
def put_in_place(path: Path) -> Iterator[Path]:
    """Let a file be written beside its place, and put it there when it is on the disk, whole.

    Args:
        path: Its place; what is there stays until then, and for good where writing fails.

    Yields:
        Where to write it.
    """
    beside = path.with_name(f".{path.name}{_PART}")
    try:
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove_parts(folder: Path) -> None:
    """Remove what launches that were killed while writing have left beside its place."""
    for path in folder.glob(f".*{_PART}"):
        with suppress(OSError):
            path.unlink()


def write_pointer(work_dir: Path, checkpoint: str) -> None:
    """Let ``last_checkpoint`` name a checkpoint."""
    with put_in_place(work_dir / POINTER) as beside:
        beside.write_text(checkpoint, encoding="utf-8")


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is all there: reads it once and compares its checksums.

    What ``torch.save`` has written since 1.6 is a zip. A folder is none: half of a path in
    ``last_checkpoint`` names one.
    """
    try:
        with zipfile.ZipFile(path) as content:
            return content.testzip() is None
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError):
        return False


def latest_checkpoint(work_dir: Path) -> tuple[Path | None, str]:
    """Find the checkpoint that a run goes on from.

    It is the one that ``last_checkpoint`` names, if that is whole; else the furthest of those
    that are, in the work dir and beside the one that is named.

    Args:
        work_dir: The run's folder.

    Returns:
        Its path, None where there is none; and in a line why it is not the one that is named,
        or "".

    Raises:
        UsageError: One is named, and nothing whole is there.
    """
    named = _named(work_dir)
    if named is not None and is_whole(named):
        return named, ""
    # half of a path may name any folder above
    apart = [named.parent] if named is not None and named.suffix == ".pth" else []
    folders = dict.fromkeys([work_dir, *apart])
    found = [path for folder in folders for path in folder.glob("*.pth") if path.is_file()]
    resumable = {path: at for path in found if (at := _iteration(path)) is not None}
    problem = _problem(work_dir, named)
    for path in sorted(resumable, key=lambda path: resumable[path], reverse=True):
        if is_whole(path):
            return path, f"{problem}: going on from {path}, iteration {resumable[path]}"
    if named is not None:
        raise UsageError(
            f"{problem}, and no other checkpoint there is whole: mend {work_dir / POINTER}, or "
            "leave out --resume to start anew"
        )
    return None, (f"{problem}, and no checkpoint there is whole: starting anew" if found else "")


def has_checkpoint(work_dir: Path) -> bool:
    """Whether a run has left anything to go on from, whole or not."""
    return (work_dir / POINTER).is_file() or any(work_dir.glob("*.pth"))


def read_meta(path: Path) -> dict[str, Any]:
    """Return a checkpoint's ``meta``; its tensors stay on the disk.

    Unpickles it, as resuming from it does.
    """
    content = torch.load(path, map_location="cpu", mmap=True, weights_only=False)
    return dict(content["meta"])


def _named(work_dir: Path) -> Path | None:
    """What ``last_checkpoint`` names, also after the work dir was moved."""
    try:
        text = (work_dir / POINTER).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not text:
        return None
    moved = work_dir / Path(text).name
    return moved if not Path(text).exists() and moved.exists() else Path(text)


def _problem(work_dir: Path, named: Path | None) -> str:
    if named is None:
        return f"{work_dir} has no {POINTER} that names a checkpoint"
    return f"checkpoint {named} {'is cut off or damaged' if named.exists() else 'is not there'}"


def _iteration(path: Path) -> int | None:
    """How far a checkpoint is; None for what no run can go on from, such as a best one."""
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=False)
        return int(content["meta"]["iter"]) if "optimizer" in content else None
    except Exception:  # whatever reading half a pickle raises
        return None


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every file system lets a folder be synced
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
