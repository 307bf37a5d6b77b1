"""Representation and noise of some layers, at intervals of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.runner import Runner

from ..measure.gradient_noise import GradientNoiseProbe
from ..measure.representation import RepresentationProbe
from .runner_access import accumulation_of, batch_size_of, single_optimizer, unwrapped_model

if TYPE_CHECKING:
    from .recorder import Recorder

SAMPLES_BETWEEN_DRAINS = 10


def check_layer_options(**options: Mapping[str, Any] | None) -> None:
    """Refuse options that are not ``dict(layers=[...], interval=N)``.

    Raises:
        ValueError: One line: which option, what it should be.
    """
    for name, option in options.items():
        if option is None:
            continue
        known = isinstance(option, Mapping) and set(option) == {"layers", "interval"}
        layers, interval = (option["layers"], option["interval"]) if known else (None, None)
        patterns = [layers] if isinstance(layers, str) else layers
        named = isinstance(patterns, list | tuple) and all(isinstance(p, str) for p in patterns)
        whole = isinstance(interval, int) and not isinstance(interval, bool) and interval >= 1
        if not (known and named and whole):
            raise ValueError(
                f"SMDHook: {name} must be dict(layers=[names or patterns], interval=whole number "
                f"of 1 or more), got {option!r}"
            )


class LayerProbes:
    """The probes that :class:`~smd_hooks.hooks.smd_hook.SMDHook` was asked for, if any.

    Args:
        runner: The run, at the start of training.
        representation: Layers and interval of the representation change; None for none.
        noise: Layers and interval of gradient noise, likewise.
        counts: Steps of the run that is being resumed, by optimizer.
        memory: What that run remembered, as :meth:`memory` gives it.

    Raises:
        RuntimeError: There are several optimizers, or there is no second batch to tell
            noise from signal.
        ValueError: A pattern matches no layer.
    """

    def __init__(
        self,
        runner: Runner,
        representation: Mapping[str, Any] | None,
        noise: Mapping[str, Any] | None,
        counts: Mapping[str, dict[str, int]],
        memory: Mapping[str, Any],
    ) -> None:
        self._representation: RepresentationProbe | None = None
        self._noise: GradientNoiseProbe | None = None
        if representation is None and noise is None:
            return
        optimizer = single_optimizer(runner, "SMDHook (representation, noise)")
        model = unwrapped_model(runner)
        count = counts.get("", {"attempts": 0, "skipped": 0})
        first_step = count["attempts"] - count["skipped"]
        if representation is not None:
            self._representation = RepresentationProbe(
                optimizer, model, **representation, first_step=first_step
            )
        if noise is not None:
            if accumulation_of(runner) * runner.world_size < 2:
                raise RuntimeError(
                    "SMDHook: noise needs two batches per step to compare; set "
                    "optim_wrapper.accumulative_counts to 2 or more, or train on several GPUs"
                )
            self._noise = GradientNoiseProbe(
                optimizer,
                model.named_parameters(),
                **noise,
                batch_size=batch_size_of(runner, "SMDHook: noise"),
                first_step=first_step,
            )
            self._noise.remember(memory)

    def memory(self) -> dict[str, Any]:
        """Return what noise is averaged over, for a checkpoint; to be drained before."""
        return {} if self._noise is None else self._noise.memory()

    @property
    def is_due(self) -> bool:
        """Whether enough samples wait to be worth a look."""
        probes = [p for p in (self._representation, self._noise) if p is not None]
        return any(len(probe) >= SAMPLES_BETWEEN_DRAINS for probe in probes)

    def drain(self, recorder: Recorder | None) -> None:
        """Hand the samples to the recorder; without one (other ranks) they are dropped."""
        for probe in (self._representation, self._noise):
            if probe is not None:
                columns = probe.drain()
                if recorder is not None:
                    recorder.append(_long(columns), "layers")

    def close(self, recorder: Recorder | None) -> None:
        """Hand over what is left and remove the probes' hooks."""
        self.drain(recorder)
        for probe in (self._representation, self._noise):
            if probe is not None:
                probe.detach()


def _long(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One row per step, parameter and quantity."""
    quantities = [name for name in columns if name not in ("step", "parameter")]
    rows = len(columns["step"])
    return {
        "step": np.tile(columns["step"], len(quantities)),
        "parameter": np.tile(columns["parameter"], len(quantities)),
        "quantity": np.repeat(np.array(quantities, dtype=object), rows),
        "value": np.concatenate([columns[name] for name in quantities]).astype(float),
    }
