"""The Runner of ``python -m benchmarks run``: resumed, a run is what it would have been."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    broadcast_object_list,
    is_main_process,
)
from mmengine.hooks import Hook
from mmengine.runner import Runner

from smd_hooks.hooks.runner_access import accumulation_of

from .checkpoint_files import latest_checkpoint, put_in_place, read_meta
from .checkpoint_hook import SafeCheckpointHook, in_place_of_mmengines
from .interrupts import Notice, ToldToEnd
from .loops import exact_loop
from .processes import ParallelRunner
from .random_state import (
    RandomState,
    capture_random_state,
    random_states_of_all_ranks,
    restore_random_state,
)
from .workers import WorkerInit

AGREE_EVERY = 10
"""Iterations after which several processes compare what they were told."""
_CHECKPOINT_KEY = "benchmarks"
_STAMP = "%Y%m%d_%H%M%S"


class SuiteRunner(ParallelRunner):
    """MMEngine's Runner, exactly resumable.

    Checkpoints also hold every process's random state, whether the validation that was due has
    ended and, of a single process, gradients that are being accumulated; they are put in place
    whole. Validations leave the random state of training alone.
    The config and its text stay as they are: hooks and loops are replaced as they are built.
    A run without a seed keeps the one that it drew. On GPUs equality bit by bit also needs
    operations that repeat themselves (``randomness=dict(deterministic=True)``).

    Attributes:
        notice: Where signals are noted; of a run that nobody sends any, an empty one.
    """

    notice = Notice()
    _resume_from: Path | None = None
    _resume_warning = ""
    _drawn_seed: int | None = None
    _set_aside: RandomState | None = None
    _states: list[RandomState]
    _point: dict[str, Any] | None = None
    _validated = -1

    # ------------------------------------------------------------------ before training

    def setup_env(self, env_cfg: dict) -> None:
        """Prepare processes; agree on this launch's folder and on what it goes on from."""
        super().setup_env(env_cfg)
        found: list[Any] = [self._where_it_begins() if is_main_process() else None]
        broadcast_object_list(found)
        self._timestamp, self._resume_from, self._resume_warning, self._drawn_seed = found[0]

    def _where_it_begins(self) -> tuple[str, Path | None, str, int | None]:
        work_dir = Path(self.work_dir)
        stamp = later_stamp(work_dir, self._timestamp)
        if not self.cfg.get("resume"):
            return stamp, None, "", None
        path, warning = self.cfg.get("load_from"), ""
        if path is None:
            path, warning = latest_checkpoint(work_dir)
        seeded = (self.cfg.get("randomness") or {}).get("seed") is not None
        known = path is not None and not seeded and Path(path).is_file()
        return stamp, path, warning, read_meta(path).get("seed") if known else None

    def set_randomness(self, seed: int | None, *args: Any, **options: Any) -> None:
        """Seed the generators; a run without a seed that goes on has the one it drew."""
        super().set_randomness(self._drawn_seed if seed is None else seed, *args, **options)

    def register_hook(self, hook: Any, priority: Any = None) -> None:
        """Register a hook; ours in CheckpointHook's place."""
        super().register_hook(in_place_of_mmengines(hook), priority)

    def register_hooks(self, *args: Any, **options: Any) -> None:
        """Register the config's hooks, and the one that keeps where the run is."""
        super().register_hooks(*args, **options)
        self.register_hook(_ResumePointHook())

    def build_train_loop(self, loop: Any) -> Any:
        """Build the training loop; ours in the place of MMEngine's two."""
        return super().build_train_loop(exact_loop(loop) if isinstance(loop, dict) else loop)

    @staticmethod
    def build_dataloader(*args: Any, **options: Any) -> Any:
        """Build a loader whose workers leave it to the training process when to end."""
        loader = Runner.build_dataloader(*args, **options)
        if not isinstance(loader.worker_init_fn, WorkerInit):
            loader.worker_init_fn = WorkerInit(loader.worker_init_fn)
        return loader

    def load_or_resume(self) -> None:
        """Load or resume; from the newest checkpoint that is whole."""
        if self._has_loaded or not self._resume or self._load_from is not None:
            super().load_or_resume()
            return
        if self._resume_warning and is_main_process():
            self.logger.warning(self._resume_warning)
        if self._resume_from is not None:
            self.resume(str(self._resume_from))

    # ------------------------------------------------------------------ while it trains

    @property
    def epoch_began(self) -> int:
        """Iteration that the epoch began with which the run goes on in."""
        return self.iter if self._point is None else int(self._point["epoch_began"])

    def goes_on(self) -> None:
        """Take up random state and half-accumulated gradients of the checkpoint, if any."""
        if self._point is None:
            return
        for name, parameter in self.model.named_parameters():
            if name in self._point["gradients"]:
                parameter.grad = self._point["gradients"][name].to(parameter, copy=True)
        states = self._point["random_states"]
        if len(states) == self.world_size:
            restore_random_state(states[self.rank])
        elif is_main_process():
            self.logger.warning(
                f"the checkpoint is of {len(states)} processes, this run has {self.world_size}: "
                "random numbers are not those of the run that it goes on from"
            )

    def validate(self) -> None:
        """Validate, unless the checkpoint has this validation's end; then look for signals."""
        if self._validated == self.iter:
            return
        with self.random_state_kept():
            self.val_loop.run()
        self._validated = self.iter
        self.end_if_told(now=True)

    @contextmanager
    def random_state_kept(self) -> Iterator[None]:
        """Put the generators back afterwards; checkpoints saved meanwhile have them as before."""
        outer = self._set_aside
        self._set_aside = state = capture_random_state()
        try:
            yield
        finally:
            restore_random_state(state)
            self._set_aside = outer

    def end_if_told(self, now: bool = False) -> None:
        """End between two iterations if a signal told so, with a checkpoint.

        Args:
            now: Ask the other processes, too; else they are asked every so many iterations.

        Raises:
            ToldToEnd: The run was told to end.
        """
        several = self.world_size > 1
        if several and (self.iter % accumulation_of(self) or (not now and self.iter % AGREE_EVERY)):
            return
        told = torch.tensor(int(bool(self.notice.told_by)))
        if several:
            all_reduce(told, "max")
        if not told:
            return
        names = all_gather_object(self.notice.told_by) if several else [self.notice.told_by]
        hooks = [hook for hook in self.hooks if isinstance(hook, SafeCheckpointHook)]
        for hook in hooks[:1]:
            hook.save_interrupted(self)
        raise ToldToEnd(next(filter(None, names)), resumable=bool(hooks))

    # ---------------------------------------------------------------------- checkpoints

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **options: Any) -> None:
        """Save a checkpoint: called by all processes, put in place by the first, whole.

        Raises:
            OSError: It cannot be written; what was there is as it was.
        """
        self._states = random_states_of_all_ranks(self._set_aside or capture_random_state())
        if not is_main_process() or "://" in str(out_dir):
            super().save_checkpoint(out_dir, filename, *args, **options)
            return
        path = Path(out_dir, filename)
        try:
            with put_in_place(path) as beside:
                super().save_checkpoint(out_dir, beside.name, *args, **options)
        except OSError as error:
            raise OSError(
                f"checkpoint {path} cannot be written ({error.strerror or error}): make room and "
                "--resume"
            ) from error


class _ResumePointHook(Hook):
    """Puts into checkpoints what SuiteRunner goes on from, and takes it out again."""

    # when after_val_epoch comes here, loggers have written the validation's results
    priority = "BELOW_NORMAL"

    def after_val_epoch(self, runner: SuiteRunner, metrics: Any = None) -> None:
        """Note that this validation has ended: the best checkpoint is saved right after."""
        runner._validated = runner.iter

    def before_save_checkpoint(self, runner: SuiteRunner, checkpoint: dict) -> None:
        """Add it."""
        meta, loop = checkpoint["meta"], runner.train_loop
        same_epoch = meta["epoch"] == loop.epoch
        checkpoint[_CHECKPOINT_KEY] = {
            "random_states": runner._states,
            "validated": runner._validated == meta["iter"],
            "epoch_began": getattr(loop, "epoch_began", 0) if same_epoch else meta["iter"],
            "gradients": _gradients_so_far(runner, meta["iter"]),
        }

    def after_load_checkpoint(self, runner: SuiteRunner, checkpoint: dict) -> None:
        """Take it out; of no meaning to a run that only begins with these weights."""
        runner._point = checkpoint.get(_CHECKPOINT_KEY) if runner._resume else None
        if runner._point is not None and runner._point["validated"]:
            runner._validated = checkpoint["meta"]["iter"]


def _gradients_so_far(runner: SuiteRunner, iteration: int) -> dict[str, torch.Tensor]:
    """What is accumulated for a step that is still to come; of one process, not of several."""
    if runner.world_size > 1 or iteration % accumulation_of(runner) == 0:
        return {}
    parameters = runner.model.named_parameters()
    return {name: p.grad.cpu() for name, p in parameters if p.grad is not None}


def later_stamp(work_dir: Path, stamp: str) -> str:
    """Return a launch's stamp, or if any launch there is as late or later, the second after that.

    Records are read in the order of their folders' names, whatever the clock was set to.

    Args:
        work_dir: The run's folder.
        stamp: The present time, as MMEngine names launch folders: ``20260131_235959``.
    """
    stamps = [at for path in work_dir.glob("*_*/") if (at := _time_of(path.name)) is not None]
    latest = max(stamps, default=None)
    now = datetime.strptime(stamp, _STAMP)
    if latest is None or now > latest:
        return stamp
    return (latest + timedelta(seconds=1)).strftime(_STAMP)


def _time_of(name: str) -> datetime | None:
    try:
        return datetime.strptime(name, _STAMP)
    except ValueError:
        return None
