"""Launches of ``python -m benchmarks`` that are forked from a process that has imported everything.

One costs its training and not its imports. Each calls ``benchmarks.__main__.main``, as the
command line does.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PATIENCE = 180.0
"""Seconds that a launch may take."""


def start(
    command: Sequence[str], console: Path, prepare: Callable[..., None] | None = None, *given: Any
) -> BaseProcess:
    """Start a launch; it goes on by itself.

    Args:
        command: Arguments of ``python -m benchmarks``.
        console: What it prints is added to this file.
        prepare: Called in it first; a function of a module.
        given: What that is called with.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.survival.kills_preload"])
    process = context.Process(target=_be, args=(list(command), console, prepare, given))
    process.start()
    return process


def ended(process: BaseProcess) -> int:
    """Wait for a launch and return its exit code."""
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"not ended after {PATIENCE:.0f} s")
    return process.exitcode


def _be(
    command: list[str], console: Path, prepare: Callable[..., None] | None, given: tuple[Any, ...]
) -> None:
    import torch

    from benchmarks.__main__ import main

    torch.set_num_threads(1)
    console.parent.mkdir(parents=True, exist_ok=True)
    with open(console, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if prepare is not None:
        prepare(*given)
    code = main(command)
    sys.stdout.flush()
    sys.exit(code)
