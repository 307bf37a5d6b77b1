"""MMEngine's CheckpointHook, with a checkpoint to go on from at every moment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from smd_hooks.hooks.runner_access import accumulation_of

from .checkpoint_files import remove_parts, write_pointer

INTERRUPTED = "interrupted.pth"
"""The checkpoint of a run that was told to end; the next regular one replaces it."""
_OUTDATED = "outdated_ckpts"


class SafeCheckpointHook(CheckpointHook):
    """Takes CheckpointHook's place, options and all; removes nothing before its successor is there.

    MMEngine removes the oldest checkpoint of ``max_keep_ckpts`` (and the best one so far)
    first and writes the next one then: killed in between, a run that keeps one has none. What is
    to be removed is also noted in the checkpoint itself, so that a run that is killed before it
    has done so does it when it goes on. Where several processes train, what they accumulate is in
    no checkpoint: one that is due meanwhile waits for the optimizer's step.
    """

    out_dir: Any
    file_backend: Any
    keep_ckpt_ids: Any
    last_ckpt: Any
    _saves_best = False

    def before_train(self, runner: Runner) -> None:
        """Clear away what an earlier launch had no more time for."""
        super().before_train(runner)
        self._outdated: list[str] = []
        if self.by_epoch and is_main_process() and (length := _epoch_that_ends_amid_a_step(runner)):
            runner.logger.warning(
                f"epochs of {length} iterations do not end with an optimizer step of "
                f"{accumulation_of(runner)}: going on after one, several processes lose gradients; "
                "save checkpoints by iterations"
            )
        if not self._is_local:
            return
        if is_main_process():
            remove_parts(Path(self.out_dir))
        hub = runner.message_hub
        if runner.iter and "last_ckpt" in hub.runtime_info:  # MMEngine's own begins without one
            name = os.path.basename(hub.get_info("last_ckpt"))
            self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        if runner.iter and _OUTDATED in hub.runtime_info:
            self._outdated = list(hub.get_info(_OUTDATED))
            self._remove_outdated(runner)

    def after_train(self, runner: Runner) -> None:
        """Let a run that was told to end after its last checkpoint end with that one."""
        super().after_train(runner)
        ended_at = self.filename_tmpl.format(runner.epoch if self.by_epoch else runner.iter)
        if self._is_local and self.last_ckpt == self._path(ended_at):
            if is_main_process():
                write_pointer(Path(runner.work_dir), self.last_ckpt)
            self._outdated.append(self._path(INTERRUPTED))
            self._remove_outdated(runner)

    def every_n_train_iters(self, runner: Runner, n: int, start: int = 0) -> bool:
        """Whether a checkpoint is due, or became so since the last optimizer step."""
        if n <= 0 or _is_amid_a_step(runner, runner.iter + 1):
            return False
        since = runner.iter + 1 - start
        return since >= 0 and since % n < _iterations_to_a_checkpoint(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        """Save a regular checkpoint, point to it, and then remove what it makes outdated."""
        if self._saves_best and not self.by_epoch and _is_amid_a_step(runner, step):
            return
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                self._outdated.append(self._path(self.filename_tmpl.format(self.keep_ckpt_ids[0])))
            self.keep_ckpt_ids.append(step)  # drops the first one where it is full
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self._path(name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        self._outdated.append(self._path(INTERRUPTED))
        runner.message_hub.update_info(_OUTDATED, list(self._outdated))
        _save(self, runner, name, meta)
        if not self._saves_best:
            self._remove_outdated(runner)

    def _save_best_checkpoint(self, runner: Runner, metrics: Mapping[str, Any]) -> None:
        """Save the best checkpoint, and then remove the one that was so far."""
        self._saves_best = True
        try:
            with self._removals_noted():
                super()._save_best_checkpoint(runner, metrics)
        finally:
            self._saves_best = False
        self._remove_outdated(runner)

    # --------------------------------------------------------------------- how it is done

    @property
    def _is_local(self) -> bool:
        return "://" not in str(self.out_dir)

    def _path(self, name: str) -> str:
        return self.file_backend.join_path(self.out_dir, name)

    def _remove_outdated(self, runner: Runner) -> None:
        """Remove what is outdated, unless a later checkpoint has taken its name."""
        in_use = {self.last_ckpt, getattr(self, "best_ckpt_path", None)}
        in_use |= set(getattr(self, "best_ckpt_path_dict", {}).values())
        for path in self._outdated if is_main_process() else ():
            if path in in_use:
                continue
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # DeepSpeed's are folders
                self.file_backend.rmtree(path)
        self._outdated = []
        runner.message_hub.update_info(_OUTDATED, [])

    @contextmanager
    def _removals_noted(self) -> Iterator[None]:
        """Have what MMEngine removes meanwhile noted as outdated."""
        backend = self.file_backend
        self.file_backend = _Noting(backend, self._outdated)
        try:
            yield
        finally:
            self.file_backend = backend


def save_interrupted(runner: Runner, hook: CheckpointHook) -> None:
    """Save a checkpoint between two iterations, and let the run go on from it.

    Args:
        runner: The run.
        hook: Says where; its training has begun.
    """
    _save(hook, runner, INTERRUPTED, {"epoch": runner.epoch, "iter": runner.iter}, exact=True)


def _save(
    hook: CheckpointHook, runner: Runner, name: str, meta: dict[str, Any], exact: bool = False
) -> None:
    """Save a checkpoint and point to it; ``exact`` with all that it takes to go on."""
    runner.save_checkpoint(
        hook.out_dir,
        name,
        hook.file_client_args,
        save_optimizer=exact or hook.save_optimizer,
        save_param_scheduler=exact or hook.save_param_scheduler,
        meta=meta,
        by_epoch=hook.by_epoch,
        backend_args=hook.backend_args,
        **hook.args,
    )
    if is_main_process():
        path = hook.file_backend.join_path(hook.out_dir, name)
        write_pointer(Path(runner.work_dir), path)


class _Noting:
    """A file backend that notes what it is to remove."""

    def __init__(self, backend: Any, noted: list[str]) -> None:
        self._backend = backend
        self.remove = self.rmtree = noted.append

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def _iterations_to_a_checkpoint(runner: Runner) -> int:
    """How many iterations make one that a checkpoint can be of."""
    return accumulation_of(runner) if runner.world_size > 1 else 1


def _is_amid_a_step(runner: Runner, iteration: int) -> bool:
    """Whether processes have accumulated then what no checkpoint has."""
    is_last = iteration == runner.max_iters
    return not is_last and iteration % _iterations_to_a_checkpoint(runner) > 0


def _epoch_that_ends_amid_a_step(runner: Runner) -> int:
    """The length of epochs that do not end with an optimizer step, else 0."""
    length = len(runner.train_dataloader)
    return length if length % _iterations_to_a_checkpoint(runner) else 0


def in_place_of_mmengines(hook: Any) -> Any:
    """Return a hook's config with MMEngine's CheckpointHook replaced by ours; others as they are.

    Args:
        hook: A config, or a hook.
    """
    if not isinstance(hook, Mapping):
        return hook
    kind = hook.get("type")
    found = HOOKS.get(kind) if isinstance(kind, str) else kind
    return {**hook, "type": SafeCheckpointHook} if found is CheckpointHook else hook
