"""``python -m benchmarks run CONFIG``: train one config, as mmdet's tools/train.py does."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.runner import Runner

from benchmarks.components import type_name
from benchmarks.errors import UsageError
from benchmarks.pipelines import mmcv_ops
from smd_hooks.hooks import SMDHook
from smd_hooks.hooks.runner_access import launch_folder
from smd_hooks.records import RunState, write_state

from . import preflight
from .checkpoint_files import has_checkpoint
from .claim import Claim, check_known, claimed
from .claim_hook import ClaimHook
from .finite_loss_hook import FiniteLossHook
from .interrupts import REQUEUE, ToldToEnd, noticed, put_off
from .processes import leave_together
from .runner import SuiteRunner

_LAUNCHERS = {  # what each leaves in the environment, and how to start under it
    "pytorch": ("RANK", "torchrun -m"),
    "slurm": ("SLURM_PROCID", "srun python -m"),
    "mpi": ("OMPI_COMM_WORLD_LOCAL_RANK", "mpirun python -m"),
}
LATEST = "auto"
"""What ``--resume`` means without a checkpoint, as in mmdet's tools/train.py."""
_RANKS = {"pytorch": "RANK", "slurm": "SLURM_PROCID", "mpi": "OMPI_COMM_WORLD_RANK"}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def add_parser(commands: Any) -> None:
    """Add the ``run`` command and its options."""
    parser = commands.add_parser("run", help="train one config", description=__doc__)
    parser.add_argument("config", type=Path, help="a config file, old or new style")
    parser.add_argument("--work-dir", help="default: work_dirs/<config's name>")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=LATEST,
        metavar="CHECKPOINT",
        help="go on from a checkpoint; without one, from the latest in the work dir",
    )
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision (GPU)")
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate with the batch size, from auto_scale_lr.base_batch_size",
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--seed", type=int, help="default: the config's randomness.seed")
    parser.add_argument(
        "--cfg-options", nargs="+", action=Overrides, metavar="KEY=VALUE", help="a.b=c overrides"
    )
    # torchrun of torch < 2 hands this over as an argument
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


class Overrides(DictAction):
    """MMEngine's own parser of ``a.b=c``, after a look at the form."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        """Refuse what has no ``=``; let MMEngine parse the rest."""
        for value in values:
            if "=" not in value:
                parser.error(f"--cfg-options: '{value}' is not of the form KEY=VALUE")
        super().__call__(parser, namespace, values, option)


def run(args: argparse.Namespace) -> int:
    """Train one config.

    Returns:
        0 if the run finished, 1 if it failed, 75 if it was told to end and can go on with
        ``--resume``, 130 on Ctrl-C.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    if find_spec("mmcv") is not None:  # before a config imports mmdet; classification needs neither
        mmcv_ops.install()
    cfg = load_config(args)
    preflight.check(cfg)
    first = is_first_process(args.launcher, os.environ)
    with claimed(Path(cfg.work_dir)) if first else nullcontext() as claim:
        if first:
            check_known(Path(cfg.work_dir))
        code = _run(cfg, claim)
    if code in (0, REQUEUE):
        leave_together()
    return code


def is_first_process(launcher: str, environment: Mapping[str, str]) -> bool:
    """Whether this is the only process or the first of several, before they have met."""
    variable = _RANKS.get(launcher, "")
    return environment.get(variable, "0") == "0"


def _run(cfg: Config, claim: Claim | None) -> int:
    runner = build_runner(cfg)
    runner.register_hook(FiniteLossHook())
    if claim is not None:
        runner.register_hook(ClaimHook(claim))
    if is_main_process() and (line := other_batch(cfg, get_world_size())):
        print(f"warning: {line}", file=sys.stderr)
    try:
        with noticed() as runner.notice:
            runner.train()
    except KeyboardInterrupt:
        _fail(runner, "interrupted")
        return 130
    except ToldToEnd as told:
        with put_off():
            _fail(runner, str(told), "the run stopped")
        return REQUEUE if told.resumable else 130
    except Exception as error:
        _fail(runner, describe(error))
        return 1
    return 0


def other_batch(cfg: Config, processes: int) -> str:
    """Say in a line that the learning rate is for another batch; "" where it is for this one."""
    scaling, each = cfg.get("auto_scale_lr") or {}, cfg.train_dataloader.get("batch_size")
    base = scaling.get("base_batch_size")
    if not base or not each or scaling.get("enable"):
        return ""
    batch = each * processes * int(cfg.optim_wrapper.get("accumulative_counts") or 1)
    if batch == base:
        return ""
    return (
        f"batch {batch:,} where the config's learning rate is for {base:,}: add --auto-scale-lr, "
        f"or train with as many processes as make {base:,}"
    )


def load_config(args: argparse.Namespace) -> Config:
    """Load a config and apply the command line's options to it.

    Raises:
        UsageError: The config does not exist or does not load, or an option has nothing
            in it to work on.
    """
    if not args.config.is_file():
        what = "is a folder, name a file in it" if args.config.is_dir() else "does not exist"
        raise UsageError(f"config {args.config} {what}")
    try:
        cfg = Config.fromfile(args.config)
        cfg.merge_from_dict(args.cfg_options or {})
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # a config is Python: anything can go wrong in it
        raise UsageError(f"config {args.config} does not load: {describe(error)}") from error
    for part in ("model", "train_dataloader", "train_cfg", "optim_wrapper"):
        if not isinstance(cfg.get(part), Mapping):
            raise UsageError(f"config {args.config} has no '{part}', so it cannot be trained")
    variable, starter = _LAUNCHERS.get(args.launcher, ("", ""))
    if variable and variable not in os.environ:
        raise UsageError(f"--launcher {args.launcher}: start it with {starter} benchmarks run …")
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or f"work_dirs/{args.config.stem}"
    if args.amp:
        kind = type_name(cfg.optim_wrapper) if "type" in cfg.optim_wrapper else "OptimWrapper"
        if kind not in ("OptimWrapper", "AmpOptimWrapper"):
            raise UsageError(f"--amp needs optim_wrapper.type=OptimWrapper, the config has {kind}")
        cfg.optim_wrapper.type = "AmpOptimWrapper"
    if args.auto_scale_lr:
        if not cfg.get("auto_scale_lr", {}).get("base_batch_size"):
            raise UsageError(
                f"--auto-scale-lr: {args.config} has no auto_scale_lr.base_batch_size; set it"
            )
        cfg.auto_scale_lr.enable = True
    if args.seed is not None:
        cfg.randomness = {**cfg.get("randomness", {}), "seed": args.seed}
    if args.resume not in (None, LATEST):
        cfg.resume, cfg.load_from = True, args.resume
    elif args.resume and not (cfg.get("load_from") and not has_checkpoint(Path(cfg.work_dir))):
        cfg.resume = True
        cfg.load_from = None  # its weights are in the checkpoint, trained on
    return cfg


def build_runner(cfg: Config) -> SuiteRunner:
    """Build the Runner, its loops with their data sets, and the optimizer.

    Raises:
        UsageError: The config names or combines things that cannot be built. What the
            attempt wrote is removed again.
    """
    work_dir = Path(cfg.work_dir).absolute()
    new = [folder for folder in (work_dir, *work_dir.parents) if not folder.exists()]
    there = set(work_dir.iterdir()) if work_dir.is_dir() else set()
    try:
        runner: SuiteRunner = SuiteRunner.from_cfg(cfg)
        _ = runner.train_loop, cfg.get("val_cfg") is not None and runner.val_loop
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        return runner
    except Exception as error:
        if is_main_process():
            _remove_traces(work_dir, there, new)
        if isinstance(error, UsageError):
            raise
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            why = f"{error.strerror}; make room or choose another"
            raise UsageError(f"work dir {cfg.work_dir} cannot be written to: {why}") from error
        raise UsageError(f"the config cannot be built: {describe(error)}") from error


def _remove_traces(work_dir: Path, there: Collection[Path], new: Sequence[Path]) -> None:
    """Remove what was not in the work dir before, and the folders that were made for it.

    Other runs may have begun in those that hold it: they go only if they are empty.
    """
    for path in work_dir.iterdir() if work_dir.is_dir() else ():
        if path not in there:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with suppress(OSError):
        for folder in new:
            folder.rmdir()


def describe(error: BaseException) -> str:
    """Put an exception into one line; a loader worker's is the last of its many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = type(error).__name__
    if not lines:
        return kind
    line = lines[-1] if lines[0].startswith("Caught ") else f"{kind}: {lines[0]}"
    for speaks_for_itself in ("RuntimeError", "AssertionError", "FloatingPointError"):
        line = line.removeprefix(f"{speaks_for_itself}: ")
    return line


def _fail(runner: Runner, line: str, what: str = "error: the run failed") -> None:
    """Say why on every rank; the first leaves records readable, state and traceback on disk."""
    rank = f" on rank {get_rank()}" if get_world_size() > 1 else ""
    folder = launch_folder(runner)
    print(
        f"{what}{rank} at iteration {runner.iter}: {line} (log: {folder})",
        file=sys.stderr,
        flush=True,
    )
    if is_main_process():
        with put_off():  # where another rank fails as well, torchrun soon ends this one
            _leave_readable(runner, folder, line)


def _leave_readable(runner: Runner, folder: Path, line: str) -> None:
    """Close the records, set the state to 'failed', put the traceback into the log file."""
    for handler in runner.logger.handlers:
        if isinstance(handler, logging.FileHandler):
            record = runner.logger.makeRecord(
                runner.logger.name, logging.ERROR, "", 0, line, (), sys.exc_info()
            )
            handler.handle(record)
    with suppress(OSError):  # a full disk may be what the run died of
        for hook in runner.hooks:
            if isinstance(hook, SMDHook):
                hook.close(runner, "failed", line)
        write_state(folder, RunState("failed", runner.iter, runner.max_iters, line))
