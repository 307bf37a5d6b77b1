"""Two processes of one training, forked: they have imported everything."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch

PATIENCE = 60.0
"""Seconds that the two may take."""


def in_two_processes(work: Callable[[int], Any]) -> list[Any]:
    """Call a function in two processes that find each other, with the rank.

    Returns:
        What each returned, or the exception that it raised, as ``Kind: message``.

    Raises:
        TimeoutError: One of them waits for the other.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ends = [context.Pipe(duplex=False) for _ in range(2)]
    processes = [
        context.Process(target=_be, args=(rank, port, work, ends[rank][1])) for rank in range(2)
    ]
    for process in processes:
        process.start()
    try:
        if not all(receiver.poll(PATIENCE) for receiver, _ in ends):
            raise TimeoutError(f"not ended after {PATIENCE:.0f} s")
        return [receiver.recv() for receiver, _ in ends]
    finally:
        for process in processes:
            process.kill()
            process.join()


def _be(rank: int, port: int, work: Callable[[int], Any], sender: Any) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    try:
        sender.send(work(rank))
    except Exception as error:
        sender.send(f"{type(error).__name__}: {error}")
