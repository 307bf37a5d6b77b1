"""Measures Spherical Motion Dynamics in any MMEngine training run."""

from __future__ import annotations

import atexit
import sys
import time
from collections import defaultdict, deque
from contextlib import suppress
from functools import lru_cache
from typing import Any

import mmengine
import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .. import __version__
from ..measure.invariance import ScaleInvarianceObserver, Verdict
from ..measure.probe import StepProbe
from ..records import RecordWriter, RunState, write_state
from ..theory import NoPrediction, UpdateRule, equilibrium_angle
from .runner_access import launch_folder, single_optimizer, unwrapped_model

WINDOW = 25
"""Samples that the console's ratio is taken over (theory fixes E Δ², not each Δ)."""
STEPS_BETWEEN_DRAINS = 50
SECONDS_BETWEEN_HEARTBEATS = 5.0

_equilibrium_angle = lru_cache(maxsize=1024)(equilibrium_angle)


@HOOKS.register_module()
class SMDHook(Hook):
    """Measures how far each weight turns per step, beside how far it should.

    It watches the first training steps to find the scale-invariant weights, then takes
    a sample of every weight matrix each ``interval`` optimizer steps, writes them to
    ``<work_dir>/<timestamp>/smd/``, and puts three numbers on the console line, over
    the scale-invariant weights: ``smd_ratio`` (median of Δ/Δ*, the angular update over
    its equilibrium value, RMS of the last 25 samples), and its 5th and 95th percentile
    ``smd_p05`` and ``smd_p95``. Read the records with ``smd-hooks table WORK_DIR``.

    Only rank 0 measures; there is no communication.

    Args:
        interval: Optimizer steps between samples.

    Raises:
        ValueError: ``interval`` is not a whole number of 1 or more.
        RuntimeError: At the start of training, if the run has several optimizers or the
            config has this hook twice.

    Example::

        custom_imports = dict(imports=['smd_hooks'])
        custom_hooks = [dict(type='SMDHook', interval=50)]

    Source: Wan et al., *Spherical Motion Dynamics*, §3 and §5 (angular update).
    """

    # before the LoggerHook (BELOW_NORMAL), which prints the summary
    priority = "NORMAL"

    def __init__(self, interval: int = 50) -> None:
        if not isinstance(interval, int) or isinstance(interval, bool) or interval < 1:
            raise ValueError(
                f"SMDHook: interval must be a whole number of 1 or more, got {interval!r}"
            )
        self.interval = interval
        self._probe: StepProbe | None = None
        self._observer: ScaleInvarianceObserver | None = None
        self._writer: RecordWriter | None = None
        self._resumed_step: int | None = None

    # ------------------------------------------------------------------ life of a run

    def before_train(self, runner: Runner) -> None:
        """Attach the probe; weights are initialised and loaded by now."""
        if any(isinstance(hook, SMDHook) and hook is not self for hook in runner.hooks):
            raise RuntimeError("SMDHook: is in the config twice, keep one")
        if not is_main_process():
            return
        optimizer, model = single_optimizer(runner, "SMDHook"), unwrapped_model(runner)
        first_step = 0
        if runner.iter > 0:
            accumulation = getattr(runner.optim_wrapper, "_accumulative_counts", 1)
            first_step = self._resumed_step or runner.iter // accumulation
        self._probe = StepProbe(optimizer, model.named_parameters(), self.interval, first_step)
        self._observer = ScaleInvarianceObserver(model, optimizer)
        self._verdicts: dict[str, Verdict] = {}
        self._rules = self._read_rules()
        self._window: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))
        self._folder = launch_folder(runner)
        self._writer = RecordWriter(self._folder)
        self._description = _describe(runner, self.interval, first_step)
        self._write_run()
        self._heartbeat(runner)
        atexit.register(self._at_exit, runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Tell the probe MMEngine's own count, which differs under accumulation."""
        if self._probe is not None:
            self._probe.iteration = runner.iter

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Take verdicts once they are known, and drain the probe now and then."""
        if self._probe is None:
            return
        if self._observer is not None and self._observer.done:
            self._take_verdicts(runner)
        if len(self._probe) * self.interval >= STEPS_BETWEEN_DRAINS:
            self._drain(runner)
        self._heartbeat_when_due(runner)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Show life in a long validation, too."""
        if self._probe is not None:
            self._heartbeat_when_due(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the step count with the weights, and the records level with both."""
        if self._probe is not None and self._writer is not None:
            self._drain(runner)
            self._writer.flush()
            checkpoint["smd_hooks"] = {"step": self._probe.step}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the step count of the run that is being resumed."""
        self._resumed_step = checkpoint.get("smd_hooks", {}).get("step")

    def after_train(self, runner: Runner) -> None:
        """Write what is left and say that the run is finished."""
        self.close(runner, "finished")

    def close(self, runner: Runner, status: str, error: str = "") -> None:
        """End measuring: flush the records and write how the run ended.

        Called by MMEngine at the end of training; launchers that catch a training
        error call it with ``"failed"`` and one line. Closing twice does nothing.
        """
        if self._probe is None or self._writer is None:
            return
        if self._observer is not None:
            self._observer.detach()
            if self._observer.steps:  # a launch that took no step knows nothing new
                self._take_verdicts(runner)
        self._drain(runner)
        self._writer.flush()
        self._probe.detach()
        self._probe = None
        write_state(
            self._folder,
            RunState(status, runner.iter, runner.max_iters, error),  # type: ignore[arg-type]
        )
        atexit.unregister(self._at_exit)

    def _at_exit(self, runner: Runner) -> None:
        """The process ends inside training: in other people's launchers, by an exception."""
        error = getattr(sys, "last_value", None)
        line = f"{type(error).__name__}: {error}".splitlines()[0] if error else "stopped"
        self.close(runner, "failed", line)

    # ------------------------------------------------------------------------ records

    def _read_rules(self) -> list[UpdateRule | str]:
        """The update rule of each measured weight, or in words why there is none."""
        assert self._probe is not None
        rules: list[UpdateRule | str] = []
        optimizer = self._probe.optimizer
        group_of = {p: group for group in optimizer.param_groups for p in group["params"]}
        for weight in self._probe.weights:
            try:
                rules.append(UpdateRule.from_optimizer(optimizer, group_of[weight]))
            except NoPrediction as reason:
                rules.append(str(reason))
        return rules

    def _write_run(self) -> None:
        assert self._probe is not None
        assert self._writer is not None
        measured = [
            {
                "parameter": name,
                "measured": True,
                "rule": rule.to_json() if isinstance(rule, UpdateRule) else None,
                "no_prediction": rule if isinstance(rule, str) else "",
                **(self._verdicts[name].to_json() if name in self._verdicts else {}),
            }
            for name, rule in zip(self._probe.names, self._rules, strict=True)
        ]
        left_out = [
            {"measured": False, "rule": None, "no_prediction": "", **verdict.to_json()}
            for name, verdict in self._verdicts.items()
            if name not in set(self._probe.names)
        ]
        self._writer.write_run({**self._description, "weights": measured + left_out})

    def _heartbeat(self, runner: Runner) -> None:
        self._beat_at = time.monotonic()
        write_state(self._folder, RunState("running", runner.iter, runner.max_iters))

    def _heartbeat_when_due(self, runner: Runner) -> None:
        if time.monotonic() - self._beat_at > SECONDS_BETWEEN_HEARTBEATS:
            self._heartbeat(runner)

    def _drain(self, runner: Runner) -> None:
        assert self._probe is not None
        assert self._writer is not None
        columns = self._probe.drain()
        self._writer.append(columns)
        self._summarize(runner, columns)

    # ------------------------------------------------------------------------ console

    def _take_verdicts(self, runner: Runner) -> None:
        assert self._observer is not None
        self._observer.detach()
        self._verdicts = {v.parameter: v for v in self._observer.verdicts()}
        self._observer = None
        self._write_run()
        runner.logger.info(describe_verdicts(list(self._verdicts.values())))

    def _summarize(self, runner: Runner, columns: dict[str, np.ndarray]) -> None:
        assert self._probe is not None
        for i, lr, decay, angle in zip(
            *(columns[c] for c in ("weight", "lr", "weight_decay", "angular_update")), strict=True
        ):
            verdict, rule = self._verdicts.get(self._probe.names[i]), self._rules[i]
            if verdict is None or not verdict.scale_invariant or isinstance(rule, str):
                continue
            with suppress(NoPrediction):  # warmup may begin at a learning rate of 0
                target = _equilibrium_angle(rule.at(float(lr), float(decay)))
                self._window[i].append((angle / target) ** 2)
        if self._window:
            ratios = [float(np.sqrt(np.mean(window))) for window in self._window.values()]
            for name, quantile in (("ratio", 0.5), ("p05", 0.05), ("p95", 0.95)):
                runner.message_hub.update_scalar(
                    f"train/smd_{name}", float(np.quantile(ratios, quantile)), resumed=False
                )


def _describe(runner: Runner, interval: int, first_step: int) -> dict[str, Any]:
    return {
        "interval": interval,
        "first_step": first_step,
        "first_iteration": runner.iter,
        "max_iterations": runner.max_iters,
        "world_size": get_world_size(),
        "accumulation": getattr(runner.optim_wrapper, "_accumulative_counts", 1),
        "seed": runner.seed,
        "optimizer": type(single_optimizer(runner, "SMDHook")).__name__,
        "versions": {
            "smd_hooks": __version__,
            "torch": torch.__version__,
            "mmengine": mmengine.__version__,
        },
    }


def describe_verdicts(verdicts: list[Verdict]) -> str:
    """Say in a few lines which matrices are scale-invariant and what stops the others."""
    matrices = [v for v in verdicts if v.is_matrix]
    invariant = sum(v.scale_invariant is True for v in matrices)
    lines = [f"SMD: {invariant} of {len(matrices)} weight matrices are scale-invariant."]
    by_reason: dict[str, list[str]] = defaultdict(list)
    for verdict in matrices:
        if verdict.scale_invariant is not True:
            by_reason[verdict.reason].append(verdict.parameter.removesuffix(".weight"))
    lines += [f"  left out, {reason}: {', '.join(names)}" for reason, names in by_reason.items()]
    return "\n".join(lines)
