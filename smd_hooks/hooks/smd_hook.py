"""Measures Spherical Motion Dynamics in any MMEngine training run."""

from __future__ import annotations

import atexit
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import mmengine
import numpy as np
import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .. import __version__
from ..measure.invariance_watch import Findings
from ..measure.parameters import is_measurable
from ..measure.sharding import is_sharded
from ..measure.stepping import check_interval
from ..records import RunState, write_state
from .layer_probes import LayerProbes, check_layer_options
from .recorder import Recorder, parameters_of
from .runner_access import accumulation_of, launch_folder, optimizers_of, unwrapped_model
from .verdict_text import describe_verdicts

SECONDS_BETWEEN_HEARTBEATS = 5.0


@HOOKS.register_module()
class SMDHook(Hook):
    """Measures how far each weight turns per step, beside how far it should.

    It watches the first training steps to find the scale-invariant weights (and again
    when a module is frozen or changes mode), then takes a sample of every weight matrix
    each ``interval`` optimizer steps, writes them to ``<work_dir>/<timestamp>/smd/``, and
    puts three numbers on the console line, over the scale-invariant weights: ``smd_ratio``
    (median of Δ/Δ*, the angular update over its equilibrium value, RMS of the last 25
    samples), and its 5th and 95th percentile ``smd_p05`` and ``smd_p95``. Read the records
    with ``smd-hooks table WORK_DIR``. Runs with several optimizers (OptimWrapperDict) are
    measured optimizer by optimizer, each by its own count of steps.

    Under DDP rank 0 measures, without communication; weights sharded by FSDP2 are
    measured by all ranks, with one small reduction per sample.

    Args:
        interval: Optimizer steps between samples.
        per_filter: Keep each filter beside its tensor, where filters are scale-invariant.
        representation: ``dict(layers=[...], interval=500)``: sample the relative
            representation change of these layers (names or shell-style patterns).
        noise: ``dict(layers=[...], interval=500)``: sample gradient signal, noise and
            critical batch size of these layers, from the micro-batches of gradient
            accumulation or the ranks of DDP. Each sample is one reduction over the ranks.

    Raises:
        ValueError: An option is none of the above.
        RuntimeError: At the start of training, if the optimizer hides its steps
            (DeepSpeed, ZeroRedundancyOptimizer, FSDP1) or the config has this hook twice.

    Example::

        custom_imports = dict(imports=['smd_hooks'])
        custom_hooks = [dict(type='SMDHook', interval=50)]

    Source: Wan et al., *Spherical Motion Dynamics*, §3 and §5 (angular update); Kosson et
    al., *Analyzing & Reducing the Need for Learning Rate Warmup in GPT Training*, §6
    (representation and noise).
    """

    # before the LoggerHook (BELOW_NORMAL), which prints the summary
    priority = "NORMAL"

    def __init__(
        self,
        interval: int = 50,
        per_filter: bool = False,
        representation: Mapping[str, Any] | None = None,
        noise: Mapping[str, Any] | None = None,
    ) -> None:
        check_interval("SMDHook", interval)
        if not isinstance(per_filter, bool):
            raise ValueError(f"SMDHook: per_filter must be True or False, got {per_filter!r}")
        check_layer_options(representation=representation, noise=noise)
        self.interval = interval
        self.per_filter = per_filter
        self.representation, self.noise = representation, noise
        self._recorder: Recorder | None = None
        self._layers: LayerProbes | None = None
        self._counts: dict[str, dict[str, int]] = {}
        self._memory: dict[str, Any] | None = None
        self._noise_memory: dict[str, Any] = {}
        self._writes = False
        self._said: Findings | None = None

    # ------------------------------------------------------------------ life of a run

    def before_train(self, runner: Runner) -> None:
        """Attach the probes; weights are initialised and loaded by now."""
        if any(isinstance(hook, SMDHook) and hook is not self for hook in runner.hooks):
            raise RuntimeError("SMDHook: is in the config twice, keep one")
        optimizers, model = optimizers_of(runner, "SMDHook"), unwrapped_model(runner)
        if runner.iter == 0:  # load_from takes another run's weights, not its steps
            self._counts, self._memory, self._noise_memory = {}, None, {}
        elif not self._counts:  # resumed from a run without this hook
            steps = runner.iter // accumulation_of(runner)
            self._counts = {name: {"attempts": steps, "skipped": 0} for name in optimizers}
        self._layers = LayerProbes(
            runner, self.representation, self.noise, self._counts, self._noise_memory
        )
        self._writes = is_main_process()
        if not self._writes and not any(is_sharded(p) for p in model.parameters()):
            return
        held = [p for optimizer in optimizers.values() for p in parameters_of(optimizer)]
        if not any(map(is_measurable, held)):
            runner.logger.warning("SMDHook: no optimizer holds a weight matrix, nothing to measure")
            return
        self._folder = launch_folder(runner)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._recorder = Recorder(
                model,
                optimizers,
                self._folder if self._writes else None,
                self.interval,
                self.per_filter,
                self._counts,
                self._memory,
                _describe(runner, self),
            )
        if self._recorder.findings is not None:
            self._say(runner, self._recorder.findings)
        for warning in caught:
            runner.logger.warning(str(warning.message))
        self._heartbeat(runner)
        atexit.register(self._at_exit, runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Tell the probes MMEngine's own count, which differs under accumulation."""
        if self._recorder is not None:
            self._recorder.set_iteration(runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Take verdicts once they are known, and drain the probes now and then."""
        drained = self._recorder is not None and self._watch(runner, self._recorder)
        if self._layers is not None and (drained or self._layers.is_due):
            self._layers.drain(self._recorder)

    def _watch(self, runner: Runner, recorder: Recorder) -> bool:
        findings = recorder.look()
        if findings is not None:
            self._say(runner, findings)
        drained = recorder.drain_when_due()
        if drained:
            self._summarize(runner, recorder)
        if time.monotonic() - self._beat_at > SECONDS_BETWEEN_HEARTBEATS:
            self._heartbeat(runner)
        return drained

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Show life in a long validation, too."""
        if (
            self._recorder is not None
            and time.monotonic() - self._beat_at > SECONDS_BETWEEN_HEARTBEATS
        ):
            self._heartbeat(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep step counts and verdicts with the weights, and the records level with both."""
        if self._recorder is not None:
            if self._layers is not None:
                self._layers.drain(self._recorder)
                checkpoint["smd_hooks_noise"] = self._layers.memory()
            self._recorder.flush()
            self._summarize(runner, self._recorder)
            checkpoint["smd_hooks"] = self._recorder.counts()
            checkpoint["smd_hooks_memory"] = self._recorder.memory()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember what the run that is being resumed had counted and found."""
        self._counts = dict(checkpoint.get("smd_hooks", {}))
        self._memory = checkpoint.get("smd_hooks_memory")
        self._noise_memory = checkpoint.get("smd_hooks_noise", {})

    def after_train(self, runner: Runner) -> None:
        """Write what is left and say that the run is finished."""
        self.close(runner, "finished")

    def close(self, runner: Runner, status: str, error: str = "") -> None:
        """End measuring: flush the records and write how the run ended.

        Called by MMEngine at the end of training; launchers that catch a training
        error call it with ``"failed"`` and one line. Closing twice does nothing.
        """
        if self._layers is not None:
            self._layers.close(self._recorder)
            self._layers = None
        if self._recorder is None:
            return
        for findings in self._recorder.close(look=status == "finished"):
            self._say(runner, findings)
        self._summarize(runner, self._recorder)
        self._recorder = None
        self._write_state(RunState(status, runner.iter, runner.max_iters, error))  # type: ignore[arg-type]
        atexit.unregister(self._at_exit)

    def _at_exit(self, runner: Runner) -> None:
        """The process ends inside training: in other people's launchers, by an exception."""
        error = getattr(sys, "last_value", None)
        line = f"{type(error).__name__}: {error}".splitlines()[0] if error else "stopped"
        self.close(runner, "failed", line)

    def _say(self, runner: Runner, findings: Findings) -> None:
        if self._writes:
            runner.logger.info(describe_verdicts(findings, self._said))
        self._said = findings

    # --------------------------------------------------------------- signs of life

    def _heartbeat(self, runner: Runner) -> None:
        self._beat_at = time.monotonic()
        self._write_state(RunState("running", runner.iter, runner.max_iters))

    def _write_state(self, state: RunState) -> None:
        if self._writes:
            with suppress(OSError):  # a disk that is away must not end the training
                write_state(self._folder, state)

    def _summarize(self, runner: Runner, recorder: Recorder) -> None:
        ratios = recorder.ratios()
        if ratios:
            for name, quantile in (("ratio", 0.5), ("p05", 0.05), ("p95", 0.95)):
                runner.message_hub.update_scalar(
                    f"train/smd_{name}", float(np.quantile(ratios, quantile)), resumed=False
                )


def _describe(runner: Runner, hook: SMDHook) -> dict[str, Any]:
    optimizers = optimizers_of(runner, "SMDHook").values()
    return {
        "interval": hook.interval,
        "first_iteration": runner.iter,
        "max_iterations": runner.max_iters,
        "world_size": get_world_size(),
        "accumulation": accumulation_of(runner),
        "seed": runner.seed,
        "optimizer": ", ".join(type(optimizer).__name__ for optimizer in optimizers),
        "versions": {
            "smd_hooks": __version__,
            "torch": torch.__version__,
            "mmengine": mmengine.__version__,
        },
    }
