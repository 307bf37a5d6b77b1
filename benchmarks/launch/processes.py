"""A training on several processes: how they meet and part, and what they share."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from mmengine.device import get_device
from mmengine.dist import barrier, broadcast, is_distributed
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from .fsdp2 import FSDP2, cut_optimizer_state, gathered, is_fsdp2, refuse_what_copies_the_model
from .interrupts import put_off

_FROM_LAUNCHER = {
    "pytorch": {},
    "slurm": {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"},
    "mpi": {
        "RANK": "OMPI_COMM_WORLD_RANK",
        "WORLD_SIZE": "OMPI_COMM_WORLD_SIZE",
        "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK",
    },
}
"""torch's names in the environment, and what each launcher calls the same."""


class ParallelRunner(Runner):
    """MMEngine's Runner, also for processes without GPUs, and for FSDP2.

    Without GPUs processes meet through gloo, whatever backend the config names. Each validation
    begins with the first process's buffers on all: those that its checkpoint has, so that a run
    resumed from there measures what it would have measured.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        if self.distributed:
            self.register_hook(SameBuffersHook())

    def setup_env(self, env_cfg: dict) -> None:
        """Meet the other processes, and prepare this one."""
        if self.distributed and not is_distributed():
            os.environ.update(environment_of(self.launcher, os.environ))
            if get_device() == "cpu":
                meet_without_gpus(env_cfg.get("dist_cfg", {}).get("timeout"))
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model in DDP, or in what the config says.

        Raises:
            UsageError: What the config says does not go with one of its hooks.
        """
        if self.distributed and is_fsdp2(model_wrapper_cfg):
            refuse_what_copies_the_model(self.cfg.get("custom_hooks"))
        elif self.distributed and get_device() == "cpu":
            ddp = {
                "broadcast_buffers": False,
                "find_unused_parameters": self.cfg.get("find_unused_parameters", False),
            }
            model_wrapper_cfg = {**(model_wrapper_cfg or ddp), "device_ids": None}
        return super().wrap_model(model_wrapper_cfg, model)

    def _init_model_weights(self) -> None:
        """Initialize weights; those of FSDP2 are so already, since before they were sharded."""
        if not isinstance(self.model, FSDP2):
            super()._init_model_weights()

    def save_checkpoint(self, *args: Any, **settings: Any) -> None:
        """Save a checkpoint of whole tensors: called by all processes, written by the first."""
        with gathered(self.model, self.optim_wrapper):
            super().save_checkpoint(*args, **settings)

    def load_checkpoint(self, *args: Any, **settings: Any) -> dict[str, Any]:
        """Load the model from a checkpoint, and prepare the rest of it for the optimizer."""
        checkpoint = super().load_checkpoint(*args, **settings)
        built = isinstance(self.optim_wrapper, (OptimWrapper, OptimWrapperDict))
        if isinstance(self.model, FSDP2) and built:
            cut_optimizer_state(checkpoint, self.optim_wrapper)
        return checkpoint


class SameBuffersHook(Hook):
    """Gives all processes the first one's buffers before each validation.

    BatchNorm's running statistics are each process's own; a checkpoint has the first one's.
    """

    # after what swaps averaged weights in
    priority = "LOWEST"

    def before_val_epoch(self, runner: Runner) -> None:
        """Send them."""
        for buffer in runner.model.buffers():
            broadcast(buffer)


def meet_without_gpus(timeout: float | None = None) -> None:
    """Form the process group through gloo; MMEngine's own way asks for a GPU first.

    Args:
        timeout: seconds after which a process that waits for the others gives up; None for
            torch's default.
    """
    limit = None if timeout is None else timedelta(seconds=timeout)
    dist.init_process_group("gloo", timeout=limit)


def leave_together() -> None:
    """Leave the other processes, where there are any.

    Gloo's threads end with the group, and that with the last that holds it. Where one of them still
    lets go of a tensor when the interpreter ends, the process is aborted, and launchers call a run
    failed that has finished.
    """
    if dist.is_available() and dist.is_initialized():
        with put_off():
            barrier()  # one that leaves early breaks off what others still exchange
            gc.collect()  # a Runner that has ended is in cycles, and its DDP holds the group
            dist.destroy_process_group()


def environment_of(launcher: str, found: Mapping[str, str]) -> dict[str, str]:
    """What torch needs in the environment, from what a launcher leaves there.

    Args:
        launcher: ``pytorch``, ``slurm`` or ``mpi``.
        found: the environment.

    Returns:
        Variables to set. Under Slurm processes meet on the job's first host, at a port that
        belongs to the job; MASTER_ADDR and MASTER_PORT override either.
    """
    told = {name: found[other] for name, other in _FROM_LAUNCHER[launcher].items()}
    if launcher == "slurm":
        told["MASTER_ADDR"] = found.get("MASTER_ADDR") or _first_host(found["SLURM_NODELIST"])
        told["MASTER_PORT"] = found.get("MASTER_PORT") or port_of(int(found["SLURM_JOB_ID"]))
    return told


def port_of(job: int) -> str:
    """A port for the processes of a Slurm job: two jobs on one host must not share one."""
    return str(20_000 + job % 10_000)


def _first_host(nodes: str) -> str:
    shown = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
    )
    return shown.stdout.split()[0]
