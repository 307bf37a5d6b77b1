"""The Runner of ``python -m benchmarks run``: resumed, a run is what it would have been."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    broadcast_object_list,
    is_main_process,
)
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.runner import Runner, get_priority

from smd_hooks.hooks.runner_access import accumulation_of

from .checkpoint_files import latest_checkpoint, put_in_place, read_meta
from .checkpoint_hook import in_place_of_mmengines, save_interrupted
from .interrupts import Notice, ToldToEnd, put_off
from .loops import exact_loop
from .processes import ParallelRunner
from .random_state import (
    RandomState,
    capture_random_state,
    random_states_of_all_ranks,
    restore_random_state,
)
from .resume_point import ResumePointHook
from .validation_exit import batches_of_all_ranks, end_validation, may_be_left
from .workers import WorkerInit

AGREE_EVERY = 10
"""Iterations, or batches of a validation, after which processes compare what they were told."""
_STAMP = "%Y%m%d_%H%M%S"


class SuiteRunner(ParallelRunner):
    """MMEngine's Runner, exactly resumable.

    Checkpoints also hold every process's random state, whether the validation that was due has
    ended and, of a single process, gradients that are being accumulated; they are put in place
    whole. Validations leave the random state of training alone; one in which the run is told to
    end is left, and done anew by the run that goes on.
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
    _val_batches = 0

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
        self.register_hook(ResumePointHook())
        for hook in self.hooks:  # what it counts belongs into the best checkpoint, saved next
            if isinstance(hook, EarlyStoppingHook):
                hook.priority = "LOW"
        self._hooks.sort(key=lambda hook: get_priority(hook.priority))

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
        """Validate, unless the checkpoint has this validation's end; look for signals meanwhile."""
        if self._validated == self.iter:
            return
        loader = getattr(self.val_loop, "dataloader", None)
        self._val_batches = batches_of_all_ranks(loader) if may_be_left(self.hooks) else 0
        with self.random_state_kept():
            self.val_loop.run()
        self._val_batches = 0
        self._validated = self.iter
        self.end_if_told()

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

    def end_if_told(self, at: int = 0) -> None:
        """End between two iterations if a signal told so, with a checkpoint.

        Args:
            at: A count that is the same in all processes: they ask each other at every so many.

        Raises:
            ToldToEnd: The run was told to end.
        """
        if told_by := self._told_by(at):
            self._end(told_by)

    def leave_validation_if_told(self, done: int) -> None:
        """End in a validation if a signal told so; when the run goes on, it is done anew.

        Args:
            done: Batches that this process has validated.

        Raises:
            ToldToEnd: The run was told to end.
        """
        if done <= self._val_batches and (told_by := self._told_by(done)):
            end_validation(self)
            self._end(told_by)

    def _told_by(self, at: int) -> str:
        """The signal that told any of the processes to end, "" where none did."""
        if self.world_size == 1:
            return self.notice.told_by
        # what is being accumulated differs between processes, and is in no checkpoint
        if self.iter % accumulation_of(self) or at % AGREE_EVERY:
            return ""
        told = torch.tensor(int(bool(self.notice.told_by)))
        all_reduce(told, "max")
        return next(filter(None, all_gather_object(self.notice.told_by))) if told else ""

    def _end(self, told_by: str) -> NoReturn:
        hooks = [hook for hook in self.hooks if isinstance(hook, CheckpointHook)]
        problem = None
        with put_off():  # told again, or sooner than others, nobody may cut the writing short
            try:
                for hook in hooks[:1]:
                    save_interrupted(self, hook)
            except OSError as error:
                problem = error
            # where a process ends, launchers kill the others: wait until the first has written
            problems = all_gather_object(str(problem or ""))
        if any(problems):
            raise problem or OSError(next(filter(None, problems)))
        raise ToldToEnd(told_by, resumable=bool(hooks))

    # ---------------------------------------------------------------------- checkpoints

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **options: Any) -> None:
        """Save a checkpoint: called by all processes, put in place by the first, whole.

        Raises:
            OSError: It cannot be written; what was there is as it was.
        """
        self.call_hook("before_save_on_all_ranks")  # MMEngine asks the first one's hooks only
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
