"""RotationalUpdate: somebody else's optimizer, in rotational equilibrium from the first step on.

Kosson et al., *Rotational Equilibrium: How Weight Decay Balances Learning Across Neural
Networks*, §5 and Algorithm 1, arXiv 2305.17212.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..measure.sharding import local
from ..measure.stepping import InsideStep
from ..theory import NoPrediction, RotationalRule, UpdateRule
from ..theory.rule_readers import ROTATIONAL_UPDATE
from .choose_passes import passes_for
from .members import Members, as_units_of, find_members, warn_of_rounding
from .passes import SETTINGS, Batch, Direction
from .rotational import rotational_defaults
from .sphere_optimizer import SphereOptimizer
from .stand_in_factors import Asked, Kept, stand_in_factors
from .stand_ins import StandIns
from .state import keep_per_unit, on_device, per_unit
from .turning import angle_now, check_turning, turns
from .units import in_layout_of

STEP, RADIUS, UPDATE_NORM = "rotational_step", "rotational_radius", "rotational_update_norm"
"""Keys in ``optimizer.state[p]``: steps taken, and of each unit its norm and RMS of ‖u‖."""
SCHEDULED = ("params", "param_names", "lr", "weight_decay", "initial_lr", "max_lr", "peak_lr")
"""Keys of a group that its rule's constant does not depend on."""


class RotationalUpdate:
    """Turns the matrices of an optimizer by the angle of its equilibrium, and keeps their norms.

    What :class:`~smd_hooks.optim.RotationalSGD` and its kin do, done to the optimizer that a
    training loop has already: SGD, heavy-ball and Nesterov SGD, SGDW, AdamW, Lion, and others
    that :func:`smd_hooks.theory.register_rule` made known. Gains, biases and groups without
    weight decay take its ordinary update, to the bit.

    The optimizer does not step rotational weights themselves, but stand-ins that are zero. So
    what it leaves is its direction, −ηu, without weight decay (neither decoupled nor through
    the gradient) and without the rounding of a small step on a large weight. Then, as in
    :class:`~smd_hooks.optim.rotational.RotationalOptimizer`, u without its mean and its part
    along w is measured against its running norm ū, and w ← n·(w − η_r·n·u/ū)/‖…‖. Norms n are
    those at the first step. Where η is 0, or a fused optimizer skips the step of a gradient
    scaler, nothing changes.

    What it remembers is in ``optimizer.state``, and goes with its checkpoints. A resumed run
    is the undisturbed one to the bit, unless weights are bf16 or fp16: then torch rounds
    the norms that it loads as well.

    Args:
        optimizer: The optimizer. Its groups may have any of the following options as a key,
            and ``rotational=True`` or ``False``, as those of RotationalSGD.
        per_neuron: Units are rows (the first dimension), so that all neurons turn alike;
            else whole tensors.
        zero_mean: Take each unit's mean off, at the first step and off every direction.
        update_norm_decay: Decay of the running mean of ‖u‖².
        schedule: ``"sqrt"``: η_r follows the root of lr, as equilibrium does; ``"linear"``:
            lr itself, with the equilibrium of its peak (``initial_lr``, or lr now).
        angle: η_r at the peak of the schedule in radians per step, in place of what lr and λ
            say; λ may then be 0.

    Raises:
        ValueError: An option is out of range; there is nothing to turn; or what the optimizer
            does is not known, or has no equilibrium angle (Adam with L2), unless ``angle``
            is given.
        RuntimeError: The optimizer turns its weights itself, or is constrained already; or,
            later, a gradient is sparse.

    Warns:
        UserWarning: Rotational weights are bf16 or fp16, and steps drown in rounding.

    Example::

        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
        update = RotationalUpdate(optimizer)
        ...  # train as ever
        update.detach()
    """

    def __init__(
        self,
        optimizer: Optimizer,
        per_neuron: bool = True,
        zero_mean: bool = True,
        update_norm_decay: float = 0.9,
        schedule: str = "sqrt",
        angle: float | None = None,
    ) -> None:
        _refuse_optimizer(optimizer)
        shared = rotational_defaults(per_neuron, zero_mean, update_norm_decay, schedule, angle)
        self._options = {"rotational": None, "weight_decay": 0.0, **shared}
        self.optimizer = optimizer
        self._constants: dict[Any, float] = {}
        setattr(optimizer, ROTATIONAL_UPDATE, self._options)
        try:
            self._check()
        except ValueError:
            delattr(optimizer, ROTATIONAL_UPDATE)
            raise
        self._stand_ins = StandIns(optimizer)
        self._key: Any = None
        self._members: list[Members] = []
        self._begun = self._warned = False
        self._handles: list[Any] = [
            InsideStep(optimizer, self._begin, self._end),
            optimizer.register_state_dict_pre_hook(lambda _: self._stand_ins.put_back()),
        ]

    def detach(self) -> None:
        """Leave the optimizer to itself; what is in its state stays."""
        for handle in self._handles:
            handle.remove()
        self._stand_ins.put_back()
        self._stand_ins.keep([])
        if self._handles:
            delattr(self.optimizer, ROTATIONAL_UPDATE)
        self._handles, self._members, self._key = [], [], None

    # ------------------------------------------------------------------------- groups

    def _groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups with our options; notes each one's lr as its peak."""
        for group in self.optimizer.param_groups:
            lr = group["lr"]
            group.setdefault("peak_lr", lr.clone() if isinstance(lr, Tensor) else lr)
        return [{**self._options, **group} for group in self.optimizer.param_groups]

    def _check(self) -> None:
        turning = []
        for index, group in enumerate(self._groups()):
            check_turning("RotationalUpdate", group)
            turning.append(any(turns(group, p) for p in group["params"]))
            if turning[-1]:
                self._constant(index)
        if not any(turning):
            raise ValueError(
                "RotationalUpdate: there is nothing to turn, no matrix has weight decay; give the "
                "optimizer a weight_decay, or an angle in radians per step here"
            )

    def _constant(self, index: int) -> float:
        """c of a group's rule; read anew only when something that it depends on changes."""
        group = self.optimizer.param_groups[index]
        settings = {k: v for k, v in group.items() if k not in SCHEDULED}
        key = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in settings.items())
        if key not in self._constants:
            at_one = {**settings, "lr": 1.0, "weight_decay": 1.0}
            try:
                rule = UpdateRule.from_optimizer(self.optimizer, at_one)
            except NoPrediction as reason:
                raise ValueError(f"RotationalUpdate: {reason}") from None
            assert isinstance(rule, RotationalRule)
            self._constants[key] = rule.constant
        return self._constants[key]

    # --------------------------------------------------------------------------- steps

    def _begin(self) -> None:
        """Exchange what has a gradient; units on no sphere are to take an ordinary step."""
        self._begun = True
        self._find()
        free: dict[Tensor, Tensor | None] = {}
        for members in self._members:
            free.update(dict.fromkeys(members.parameters))
            states = [(p, self.optimizer.state.get(p, {})) for p in members.parameters]
            known = {p: local(state[RADIUS]) for p, state in states if RADIUS in state}
            if known:
                flags = torch.cat(list(known.values())) == 0
                free.update(zip(known, flags.split(list(map(len, known.values()))), strict=True))
        self._stand_ins.exchange(free)

    def _find(self) -> None:
        """Look for rotational weights with a gradient; sort them anew when they change."""
        self._stand_ins.put_back()
        groups = self._groups()
        present = [
            [p for p in group["params"] if p.grad is not None and turns(group, p)]
            for group in groups
        ]
        key = [
            (group["per_neuron"], *map(id, own)) for group, own in zip(groups, present, strict=True)
        ]
        if key == self._key:
            return
        own = [{**group, "params": p} for group, p in zip(groups, present, strict=True)]
        self._members = find_members("RotationalUpdate", own, lambda *_: True)
        self._stand_ins.keep(p for group in groups for p in group["params"])
        self._key = key
        for member in (m for members in self._members for m in members.members):
            if not self._warned:
                angle = angle_now(groups[member.group], self._constant(member.group))
                self._warned = warn_of_rounding("RotationalUpdate", member.parameter, angle)

    @torch.no_grad()
    def _end(self) -> None:
        self._stand_ins.put_back()
        if not self._begun:
            raise RuntimeError(
                f"RotationalUpdate: {type(self.optimizer).__name__}.step did not call its closure"
            )
        self._begun = False
        groups = self._groups()
        for members in self._members:
            self._turn(members, groups)

    def _turn(self, members: Members, groups: Sequence[Mapping[str, Any]]) -> None:
        """Turn weights along what the optimizer made of their stand-ins."""
        units = members.units
        states = [self._state_of(members, i) for i in range(len(members.members))]
        table = [self._numbers(groups[index], index) for index in members.groups]
        columns = on_device(table, units.device)[members.group_of].T
        moves = self._moves(columns[0])
        asked = Asked(*map(units.spread, (moves, *columns)))
        steps = torch.stack([state[STEP] for state in states]).double()
        norms = (per_unit(members, states, name) for name in (RADIUS, UPDATE_NORM))
        weights = members.weights()
        batch = self._batch(members, weights)
        passes = passes_for(weights[0].dtype, weights[0].device)
        sums = passes.direction_sums(batch)
        assert sums is not None
        members.add_up_shards(sums)
        kept = Kept(units.spread(steps), *norms)
        factors, kept = stand_in_factors(sums, members.elements, asked, kept)
        passes.move(batch, factors)
        members.put_back(weights)
        keep_per_unit(members, states, RADIUS, kept.radius)
        keep_per_unit(members, states, UPDATE_NORM, kept.update_norm)
        torch._foreach_add_([state[STEP] for state in states], list(moves.float().unbind()))

    def _numbers(self, group: Mapping[str, Any], index: int) -> list[Any]:
        angle = angle_now(group, self._constant(index))
        return [group["lr"], angle, float(group["zero_mean"]), group["update_norm_decay"]]

    def _moves(self, lr: Tensor) -> Tensor:
        """Whether tensors move, shape (members,); a scaler's verdict stays on the device."""
        found_inf = getattr(self.optimizer, "found_inf", None)
        moves = lr > 0
        return moves if found_inf is None else moves & (found_inf.to(lr.device).reshape(()) == 0)

    def _state_of(self, members: Members, i: int) -> dict[str, Any]:
        """A weight's state; not made before the optimizer has made its own, if it has any."""
        member, state = members.members[i], self.optimizer.state[members.parameters[i]]
        if RADIUS not in state:
            device = members.units.device
            zeros = torch.zeros(members.units.counts[i], device=device)
            state[STEP] = torch.zeros((), device=device)
            state[RADIUS] = as_units_of(member, zeros - 1)  # 0 is a unit's that began at 0
            state[UPDATE_NORM] = as_units_of(member, zeros)
        return state

    def _batch(self, members: Members, weights: Sequence[Tensor]) -> Batch:
        """Stand-ins as buffers that do not move: v ← v + w − w."""
        device, count = members.units.device, len(weights)
        left = [
            in_layout_of(local(self._stand_ins[p]), w)
            for p, w in zip(members.parameters, weights, strict=True)
        ]
        settings = torch.ones(count, SETTINGS, dtype=torch.float64, device=device)
        decay = torch.full((len(members.units),), -1.0, dtype=torch.float64, device=device)
        return Batch(Direction.MOMENTUM, members.units, weights, weights, [left], settings, decay)


def _refuse_optimizer(optimizer: Optimizer) -> None:
    name = type(optimizer).__name__
    if isinstance(optimizer, SphereOptimizer):
        raise RuntimeError(
            f"RotationalUpdate: {name} needs none; LionAR, RotationalSGD, RotationalAdamW and "
            "RotationalLion turn their weights themselves"
        )
    if hasattr(optimizer, ROTATIONAL_UPDATE):
        raise RuntimeError(f"RotationalUpdate: this {name} has one already, leave one of them out")
    if "closure" not in inspect.signature(type(optimizer).step).parameters:
        raise RuntimeError(f"RotationalUpdate: {name}.step takes no closure, so it cannot be used")
