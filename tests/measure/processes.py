"""Two gloo processes on one machine, for tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

PROCESSES = 2


def _enter(rank: int, folder: str, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=PROCESSES
    )
    try:
        result = work(rank, *args)
        if result is not None:
            torch.save(result, Path(folder) / f"{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()
    # DTensor's caches hold a sharded model's group, and with it gloo's threads, which may abort an
    # interpreter that ends under them; all is written
    os._exit(0)


def on_two_processes(folder: Path, work: Callable[..., Any], *args: Any) -> list[Any]:
    """Call ``work(rank, *args)`` on two processes and return what both returned.

    Args:
        folder: For the rendezvous and the results; one of its own for each call.
        work: A function that a new process can import.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mp.spawn(_enter, (str(folder), work, args), nprocs=PROCESSES)
    return [
        torch.load(path) if (path := folder / f"{rank}.pt").exists() else None
        for rank in range(PROCESSES)
    ]
