"""MMEngine's two training loops, going on after a resume as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from .draws import number_draws

if TYPE_CHECKING:
    from .runner import SuiteRunner


class ExactIterLoop(IterBasedTrainLoop):
    """Counts iterations, as :class:`mmengine.runner.IterBasedTrainLoop` does.

    A resumed run goes on with the next batch, of the random numbers that come next, after
    the validation that was due, if its end is not in the checkpoint. Between iterations it
    looks whether the run is told to end. Passes through the data follow each other without
    new worker processes.

    Args:
        runner: The run.
        settings: What MMEngine's loop takes.
    """

    runner: SuiteRunner

    def __init__(self, runner: SuiteRunner, **settings: Any) -> None:
        super().__init__(runner, **settings)
        self._draws = _numbered(runner, self.dataloader, endless=True)

    def run(self) -> Any:
        """Train."""
        runner = self.runner
        runner.call_hook("before_train")
        runner.call_hook("before_train_epoch")
        runner.goes_on()
        if self._iter > 0:
            self._validate_if_due()
        batches = self._batches()
        runner.end_if_told()
        while self._iter < self._max_iters and not self.stop_training:
            runner.model.train()
            self.run_iter(next(batches))
            runner.end_if_told(self._iter)
            self._validate_if_due()
        runner.call_hook("after_train_epoch")
        runner.call_hook("after_train")
        return runner.model

    def _validate_if_due(self) -> None:
        self._decide_current_val_interval()
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        if self.runner.val_loop is not None and self._iter >= self.val_begin and due:
            self.runner.validate()

    def _batches(self) -> Iterator[Any]:
        done = 0 if getattr(self, "fast_forward_on_resume", False) else self._iter
        if self._draws is None:  # what cannot be numbered is MMEngine's to advance
            if done:
                self.dataloader_iterator.skip_iter(done)
            return self.dataloader_iterator
        if done:
            self.runner.logger.info(f"Going on after {done} batches of training data")
        self._draws.begin_at(0, done)
        with self.runner.random_state_kept():
            return iter(self.dataloader)


class ExactEpochLoop(EpochBasedTrainLoop):
    """Counts epochs, as :class:`mmengine.runner.EpochBasedTrainLoop` does.

    It resumes as :class:`ExactIterLoop` does, also in the middle of an epoch.

    Args:
        runner: The run.
        settings: What MMEngine's loop takes.
    """

    runner: SuiteRunner

    def __init__(self, runner: SuiteRunner, **settings: Any) -> None:
        super().__init__(runner, **settings)
        self._draws = _numbered(runner, self.dataloader, endless=False)
        self.epoch_began = 0
        """Iteration that this epoch began with, or will."""

    def run(self) -> Any:
        """Train."""
        runner = self.runner
        runner.call_hook("before_train")
        runner.goes_on()
        self.epoch_began = runner.epoch_began
        done = self._iter - self.epoch_began
        if self._iter > 0 and not done:
            self._validate_if_due()
        runner.end_if_told()
        while self._epoch < self._max_epochs and not self.stop_training:
            self._run_epoch_after(done)
            done = 0
            self._validate_if_due()
        runner.call_hook("after_train")
        return runner.model

    def _run_epoch_after(self, done: int) -> None:
        """Train an epoch, or what is left of it after so many iterations."""
        runner = self.runner
        runner.call_hook("before_train_epoch")
        if done:
            runner.goes_on()  # what hooks draw before an epoch, this one's have drawn
        runner.model.train()
        for index, batch in enumerate(self._batches(done), start=done):
            self.run_iter(index, batch)
            if index + 1 < len(self.dataloader):
                runner.end_if_told(self._iter)
        runner.call_hook("after_train_epoch")
        self._epoch += 1
        self.epoch_began = self._iter
        runner.end_if_told()

    def _validate_if_due(self) -> None:
        self._decide_current_val_interval()
        due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        if self.runner.val_loop is not None and self._epoch >= self.val_begin and due:
            self.runner.validate()

    def _batches(self, done: int) -> Iterator[Any]:
        if self._draws is not None:
            self._draws.begin_at(self._epoch, done)
        with self.runner.random_state_kept():
            batches = iter(self.dataloader)
        for _ in range(done if self._draws is None else 0):
            next(batches)
        return batches


_EXACT = {IterBasedTrainLoop: ExactIterLoop, EpochBasedTrainLoop: ExactEpochLoop}


def exact_loop(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config's ``train_cfg`` with one of MMEngine's loops replaced by ours.

    Others, and what cannot be built, are as they are.
    """
    options = dict(config)
    if "type" in options and "by_epoch" in options:
        return config
    if "type" in options:
        kind = options.pop("type")
        asked = LOOPS.get(kind) if isinstance(kind, str) else kind
    else:
        asked = EpochBasedTrainLoop if options.pop("by_epoch", None) else IterBasedTrainLoop
    return {**options, "type": _EXACT[asked]} if asked in _EXACT else config


def _numbered(runner: SuiteRunner, loader: Any, endless: bool) -> Any:
    return number_draws(loader, runner.seed, runner.rank, runner.world_size, endless)
