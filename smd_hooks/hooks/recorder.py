"""Everything that SMDHook measures in one launch, and how it comes to disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from ..measure.invariance_watch import Findings, InvarianceWatch
from ..measure.joint_groups import JointGroup
from ..measure.parameters import is_measurable, plain_name
from ..measure.probe import StepProbe
from ..measure.samples import WHOLE
from ..measure.watch_memory import memory_of, remember
from ..records import RecordWriter
from ..theory import NoPrediction, UpdateRule, equilibrium_angle
from .unit import Unit

STEPS_BETWEEN_DRAINS = 50

_equilibrium_angle = lru_cache(maxsize=1024)(equilibrium_angle)


class Recorder:
    """Measures the optimizers of one launch and writes what it finds.

    Args:
        model: The model that is trained, unwrapped.
        optimizers: Its optimizers by name; one at least holds a matrix.
        folder: ``<work_dir>/<timestamp>``; None on processes that do not write.
        interval: Optimizer steps between samples.
        per_filter: Keep filters, too, where they are scale-invariant.
        counts: By optimizer, the count of steps of the run that is being resumed, as
            :meth:`StepProbe.state_dict` gives it.
        memory: What that run knew, as :meth:`memory` gives it; None if nothing.
        description: What else ``run.json`` is to say.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Mapping[str, Optimizer],
        folder: Path | None,
        interval: int,
        per_filter: bool,
        counts: Mapping[str, dict[str, int]],
        memory: Mapping[str, Any] | None,
        description: Mapping[str, Any],
    ) -> None:
        self._model = model
        self._optimizers = list(optimizers.values())
        self._description = description
        self._probes: dict[str, StepProbe] = {}
        for name, optimizer in optimizers.items():
            if not any(map(is_measurable, parameters_of(optimizer))):
                continue  # gains and biases may have an optimizer of their own
            probe = StepProbe(optimizer, model.named_parameters, interval, per_filter=per_filter)
            if name in counts:
                probe.load_state_dict(counts[name])
            self._probes[name] = probe
        self._first_steps = {name: probe.step for name, probe in self._probes.items()}
        watched = [probe.optimizer for probe in self._probes.values()]
        self._watch = InvarianceWatch(model, watched, list(self._first_steps.values()))
        self._units: list[Unit] = []
        self._place: dict[str, list[int]] = {name: [] for name in self._probes}
        self._findings: Findings | None = None
        self._interval = interval
        self._writer = None if folder is None else RecordWriter(folder)
        self._find_units()
        if memory is not None and remember(self._watch, memory["watch"]):
            self._take_up(memory["units"])
        self._write_run()

    @property
    def findings(self) -> Findings | None:
        """The newest verdicts."""
        return self._findings

    def memory(self) -> dict[str, Any]:
        """Return what is known of the weights, for a checkpoint."""
        units: dict[str, dict[str, Any]] = {name: {} for name in self._probes}
        for unit in self._units:
            units[unit.optimizer][unit.name] = unit.memory()
        return {"watch": memory_of(self._watch), "units": units}

    def counts(self) -> dict[str, dict[str, int]]:
        """Return each optimizer's count of steps, for a checkpoint."""
        return {name: probe.state_dict() for name, probe in self._probes.items()}

    def set_iteration(self, iteration: int) -> None:
        """Tell the probes the training loop's own count."""
        for probe in self._probes.values():
            probe.iteration = iteration

    # ------------------------------------------------------------------------ per step

    def look(self, final: bool = False) -> Findings | None:
        """Take new verdicts, if there are any, and write them."""
        findings = self._watch.poll(final)
        if findings is not None:
            self._take(findings)
            self._write_run()
        return findings

    def _take(self, findings: Findings) -> None:
        self._findings = findings
        by_name = {plain_name(v.parameter): v for v in findings.verdicts}
        for group in findings.groups:
            self._join(group)
        groups = {tuple(map(plain_name, group.members)): group for group in findings.groups}
        from_step = dict(zip(self._probes, findings.from_steps, strict=True))
        for unit in self._units:
            if not unit.is_alone:
                names = tuple(unit.probe.names[i] for i in unit.members)
                unit.judge(groups.get(names), from_step[unit.optimizer])
            elif unit.name in by_name:
                unit.judge(by_name[unit.name], from_step[unit.optimizer])
        for probe in self._probes.values():
            mine = [unit for unit in self._units if unit.probe is probe]
            probe.measure_filters(unit.name for unit in mine if unit.may_have_filters())

    def _take_up(self, units: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on with the verdicts and rules of the run that is being resumed."""
        if self._watch.findings is not None:
            self._take(self._watch.findings)
        for unit in self._units:
            known = units.get(unit.optimizer, {}).get(unit.name)
            if known is not None:
                unit.remember(known)

    def drain_when_due(self) -> bool:
        """Drain if enough samples wait; return whether it was done."""
        waiting = max(len(probe) for probe in self._probes.values()) * self._interval
        if waiting >= STEPS_BETWEEN_DRAINS:
            self.drain()
            return True
        return False

    def drain(self) -> None:
        """Bring the samples over and hand them to the writer."""
        for name, probe in self._probes.items():
            columns = probe.drain()
            if self._find_units():
                self._write_run()
            self._reread_rules()
            if not len(columns["step"]):
                continue
            columns["weight"] = np.array(self._place[name])[columns["weight"]]
            filtered = np.array([u.may_have_filters() for u in self._units])[columns["weight"]]
            kept = (columns["unit"] == WHOLE) | filtered
            columns = {key: column[kept] for key, column in columns.items()}
            self._follow_ratios(columns)
            if self._writer is not None:
                self._writer.append(columns)

    def append(self, columns: Mapping[str, np.ndarray], table: str) -> None:
        """Hand another probe's columns to the writer."""
        if self._writer is not None:
            self._writer.append(columns, table)

    def flush(self) -> None:
        """Put everything measured so far on disk."""
        self.drain()
        if self._writer is not None:
            self._writer.flush()

    def close(self, look: bool) -> list[Findings]:
        """Stop measuring, write what is left, and return verdicts that came only now.

        Args:
            look: Take verdicts from what was seen so far. Not for a process that dies alone:
                they may call the model again and, on sharded weights, the other processes.
        """
        self._watch.detach()
        late = []
        while look and (findings := self.look(final=True)) is not None:
            late.append(findings)
        self.flush()
        for probe in self._probes.values():
            probe.detach()
        return late

    def ratios(self) -> list[float]:
        """RMS of Δ/Δ* over the last samples, of each scale-invariant weight or group."""
        windows = [unit.window for unit in self._units if unit.window and unit.is_invariant]
        return [float(np.sqrt(np.mean(window))) for window in windows]

    # ------------------------------------------------------------------- what is where

    def _find_units(self) -> bool:
        """Give each thing measured its place in ``run.json``; places only ever grow."""
        known = len(self._units)
        for name, probe in self._probes.items():
            for index in range(len(self._place[name]), len(probe.names)):
                self._place[name].append(len(self._units))
                unit = Unit(probe, index, name, self._first_steps[name])
                unit.read_rule()
                self._units.append(unit)
        if len(self._units) == known:
            return False
        holders = Counter(id(w) for unit in self._units for w in unit.weights() if unit.is_alone)
        for unit in self._units:
            if any(holders[id(w)] > 1 for w in unit.weights()):
                unit.rule = "no prediction: stepped by several optimizers"
        return True

    def _reread_rules(self) -> None:
        before = [unit.rule for unit in self._units]
        for unit in self._units:
            unit.read_rule()
        said = [isinstance(rule, str) for rule in before]
        if said != [isinstance(unit.rule, str) for unit in self._units]:
            self._write_run()

    def _join(self, group: JointGroup) -> None:
        names = [plain_name(member) for member in group.members]
        for probe in self._probes.values():
            with suppress(KeyError):  # measured by another optimizer's probe, or by several
                probe.join(names)
        self._find_units()

    def _follow_ratios(self, columns: Mapping[str, np.ndarray]) -> None:
        whole = columns["unit"] == WHOLE
        names = ("weight", "lr", "weight_decay", "angle_factor", "angular_update")
        told = [columns[name][whole] for name in names]
        for place, lr, decay, factor, angle in zip(*told, strict=True):
            unit = self._units[place]
            if unit.is_invariant and isinstance(unit.rule, UpdateRule):
                with suppress(NoPrediction):  # warmup may begin at a learning rate of 0
                    target = _equilibrium_angle(unit.rule.at(float(lr), float(decay)))
                    unit.window.append((angle / (factor * target)) ** 2)

    def _write_run(self) -> None:
        if self._writer is None:
            return
        measured = [unit.to_json() for unit in self._units]
        named = {entry["parameter"] for entry in measured}
        verdicts = self._findings.verdicts if self._findings is not None else []
        decays = self._weight_decays()
        left_out = [
            {
                "measured": False,
                "rule": None,
                "no_prediction": "",
                "weight_decay": decays.get(verdict.parameter),
                **verdict.to_json(),
                "parameter": plain_name(verdict.parameter),
            }
            for verdict in verdicts
            if plain_name(verdict.parameter) not in named
        ]
        self._writer.write_run({**self._description, "weights": measured + left_out})

    def _weight_decays(self) -> dict[str, float]:
        """Weight decay of every parameter that an optimizer holds."""
        decay = {
            id(p): float(group.get("weight_decay", 0.0))
            for optimizer in self._optimizers
            for group in optimizer.param_groups
            for p in group["params"]
        }
        return {n: decay[id(p)] for n, p in self._model.named_parameters() if id(p) in decay}


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """Return every parameter that an optimizer holds."""
    return [p for group in optimizer.param_groups for p in group["params"]]
