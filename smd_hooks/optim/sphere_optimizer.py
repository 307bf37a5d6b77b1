"""What all optimizers of this package share: groups, state, checkpoints, and the step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.optim import Optimizer

from ..measure.sharding import local
from ..theory.rotation import is_rotational
from .checkpoints import adopt_loaded_state, check_radii, refuse_other_groups
from .choose_passes import passes_for
from .members import Member, Members, anchor, find_members, warn_of_rounding
from .passes import SETTINGS, Batch, Direction
from .state import ANGLE_FACTOR, buffer_beside, keep_per_unit, on_device, per_unit
from .turning import check_turning, turns

Numbers = dict[str, Any]
"""Settings by name: floats or 0-d tensors of a group, or tensors of one entry per unit."""


class SphereOptimizer(Optimizer):
    """Base of the normalized optimizers: the form of a step that they have in common.

    A subclass says how gradients become a direction (:attr:`direction`), and what turns a
    direction into a step, twice: as factors per unit for all weights at once, which
    :meth:`step` uses, and literally for one weight, which :meth:`reference_step` uses.
    Both work on the same state and may take turns.

    Every parameter group may have ``rotational=True`` or ``False``; without it matrices
    (two dimensions or more) are rotational that have weight decay or an angle.

    Raises:
        ValueError: A setting is out of range, or ``rotational=True`` is asked of a group
            whose angle would be 0; or a state dict does not fit the parameters.
        RuntimeError: A gradient is sparse or complex; or the weights' norms are not those
            that a loaded state was made with.

    Warns:
        UserWarning: Rotational weights are bf16 or fp16, and steps drown in rounding.
    """

    direction: ClassVar[Direction]
    buffers: ClassVar[tuple[str, ...]]
    """Names of the direction's buffers in the state."""
    rotates: ClassVar[bool] = True
    """Whether weights are kept on spheres at all."""
    averages: ClassVar[bool] = True
    """Whether the angle is right on average only: then ``update_norm`` is kept."""
    couples: ClassVar[bool] = False
    """Whether weight decay of ordinary updates goes through the gradient."""

    _key: list[Any]
    _found: list[Members]
    _loaded: bool
    _warned: bool

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self._forget()
        super().__init__(params, {**defaults, "rotational": None} if self.rotates else defaults)

    # ------------------------------------------------------------------ for subclasses

    def _numbers(self, group: Mapping[str, Any]) -> Numbers:
        """Return what a step of this group needs, by name; ``angle`` among it if it rotates."""
        raise NotImplementedError

    def _at_this_step(self, n: Numbers) -> Numbers:
        """Add what follows from numbers and ``step``, once per tensor rather than per unit."""
        return n

    def _settings(self, n: Numbers) -> list[Any]:
        """Return the direction's settings (see :class:`~.passes.Direction`).

        Args:
            n: Numbers of the groups and ``step``, one entry per tensor.
        """
        raise NotImplementedError

    def _turning_factors(self, n: Numbers, sums: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return factors of units that turn, and their new update norm if one is kept.

        Args:
            n: Numbers, ``step``, ``radius``, ``elements`` and ``update_norm`` per unit.
            sums: As :data:`smd_hooks.optim.sphere.SUMS`, shape (units, 5).
        """
        raise NotImplementedError

    def _ordinary_factors(self, n: Numbers) -> tuple[Any, Any]:
        """Return the factors of weight and direction in an ordinary update."""
        raise NotImplementedError

    def _reference_direction(self, n: Numbers, g: Tensor, buffers: Sequence[Tensor]) -> Tensor:
        """Update the buffers in place, and return the direction, literally.

        Args:
            n: Numbers of the group and ``step`` as floats.
            g: Gradients, float64, shape (units, elements).
            buffers: In the order of :attr:`buffers`, in their own dtype, same shape.
        """
        raise NotImplementedError

    def _reference_turn(self, n: Numbers, w: Tensor, u: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return turned weights and their new update norm, literally.

        Args:
            n: As above, with ``radius`` and ``update_norm``, shape (units, 1).
            w: Weights, float64, shape (units, elements).
            u: Direction, same shape.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------------- groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its learning rate now counts as the peak unless a scheduler says more."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._check(group)
        except ValueError:
            self.param_groups.pop()
            raise
        if self.rotates:
            lr = group["lr"]
            group.setdefault("peak_lr", lr.clone() if isinstance(lr, Tensor) else lr)
        self._forget()

    def _check(self, group: Mapping[str, Any]) -> None:
        who = type(self).__name__
        for name in ("lr", "weight_decay"):
            if not isinstance(group[name], Tensor) and not group[name] >= 0:
                raise ValueError(f"{who}: {name} must be 0 or more, got {group[name]!r}")
        for name in ("beta", "momentum", "update_norm_decay"):
            if name in group and not 0 <= group[name] < 1:
                raise ValueError(f"{who}: {name} must lie in [0, 1), got {group[name]!r}")
        for beta in group.get("betas", ()):
            if not 0 < beta < 1:
                raise ValueError(f"{who}: betas must lie between 0 and 1, got {group['betas']!r}")
        if self.rotates:
            check_turning(who, group)

    def _turns(self, group: Mapping[str, Any], parameter: Tensor) -> bool:
        return self.rotates and turns(group, parameter)

    # --------------------------------------------------------------------------- steps

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step: two passes over memory for all weights together.

        Args:
            closure: Evaluates the model again and returns the loss.
        """
        loss = _evaluate(closure)
        self._step(self._step_together)
        return loss

    def reference_step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take the same step slowly and readably, one weight after the other, unsharded."""
        loss = _evaluate(closure)
        self._step(self._step_one_by_one)
        return loss

    @torch.compiler.disable
    @torch.no_grad()
    def _step(self, take: Callable[[Members], None]) -> None:
        for members in self._present():
            torch._foreach_add_([self.state[p]["step"] for p in members.parameters], 1.0)
            take(members)

    def _present(self) -> list[Members]:
        """Return what has gradients; looked at again only when that changes."""
        key: list[Any] = []
        for group in self.param_groups:
            if self.rotates:
                key.append((group["rotational"], group["per_neuron"], is_rotational(group)))
            key += [(id(p), p.stride()) for p in group["params"] if p.grad is not None]
        if key != self._key:
            self._found = find_members(type(self).__name__, self.param_groups, self._turns)
            for members in self._found:
                self._prepare(members)
            self._key, self._loaded = key, False
        return self._found

    def _prepare(self, members: Members) -> None:
        """Make the state of what is seen for the first time, and check what was loaded."""
        for member, dense in zip(members.members, members.dense, strict=True):
            state = self.state[member.parameter]
            if "step" not in state:
                device = local(member.parameter).device
                state["step"] = torch.zeros((), dtype=torch.float32, device=device)
            for name in self.buffers:
                state[name] = buffer_beside(member.parameter, dense, state.get(name))
            if member.turns and "radius" not in state:
                self._anchor(member, state)
        if self._loaded:
            check_radii(type(self).__name__, members, self.state)

    def _anchor(self, member: Member, state: dict[str, Any]) -> None:
        group = self.param_groups[member.group]
        state["radius"] = anchor(member, zero_mean=bool(group.get("zero_mean")))
        if self.averages:
            state["update_norm"] = torch.zeros_like(state["radius"])
        if not self._warned:
            angle = self._numbers(group)["angle"]
            self._warned = warn_of_rounding(type(self).__name__, member.parameter, angle)

    def _step_together(self, members: Members) -> None:
        units, states = members.units, [self.state[p] for p in members.parameters]
        columns = self._at_this_step(self._columns(members, states))
        settings = torch.stack([*self._settings(columns), *[columns["step"]] * SETTINGS])
        factors = torch.stack([*self._ordinary_factors(columns), 0 * columns["step"]])
        factors = units.spread(factors).T
        n = dict(zip(columns, units.spread(torch.stack([*columns.values()])), strict=True))
        turns = self._add_sphere(n, members, states)
        decay = torch.where(turns, 0.0, n["weight_decay"]) if self.couples else None
        weights = members.weights()
        batch = Batch(
            self.direction,
            units,
            weights,
            members.gradients(weights),
            [members.local([state[name] for state in states]) for name in self.buffers],
            settings[:SETTINGS].T.contiguous(),
            decay,
        )
        passes = passes_for(weights[0].dtype, weights[0].device)
        sums = passes.direction_sums(batch, needed=bool(members.turning))
        if sums is not None:
            members.add_up_shards(sums)
            turning, update_norm = self._turning_factors(n, sums)
            # at lr 0 the ordinary update leaves weights as they are to the bit
            turns = turns & (sums[:, 0] > 0) & (n["lr"] != 0)
            factors = torch.where(turns[:, None], turning, factors)
            if update_norm is not None:
                keep_per_unit(members, states, "update_norm", update_norm)
        passes.move(batch, factors.contiguous())
        for weight in weights:  # so that autograd refuses a graph of before the step
            increment_version(weight)
        members.put_back(weights)

    def _columns(self, members: Members, states: Sequence[Mapping[str, Any]]) -> Numbers:
        """Return the groups' numbers and the step as tensors of one entry per member."""
        numbers = [self._numbers(self.param_groups[group]) for group in members.groups]
        table = on_device([list(group.values()) for group in numbers], members.units.device)
        columns = dict(zip(numbers[0], table[members.group_of].unbind(1), strict=True))
        columns["step"] = torch.stack([state["step"] for state in states]).double()
        if any(ANGLE_FACTOR in state for state in states):
            one = torch.ones((), device=members.units.device)
            factors = [state.get(ANGLE_FACTOR, one) for state in states]
            columns["angle"] = columns["angle"] * torch.stack(factors).double()
        return columns

    def _add_sphere(
        self, n: Numbers, members: Members, states: Sequence[Mapping[str, Any]]
    ) -> Tensor:
        """Add what spheres are known by, and return which units turn."""
        turns = members.turns
        if members.turning:
            radius = per_unit(members, states, "radius")
            turns = turns & (radius > 0)
            n["radius"], n["elements"] = torch.where(turns, radius, 1.0), members.elements
            if self.averages:
                n["update_norm"] = per_unit(members, states, "update_norm")
        return turns

    def _step_one_by_one(self, members: Members) -> None:
        for member in members.members:
            one, state = Members((member,)), self.state[member.parameter]
            numbers = self._numbers(self.param_groups[member.group])
            n: Numbers = {name: float(value) for name, value in numbers.items()}
            n["step"] = float(state["step"])
            if ANGLE_FACTOR in state:
                n["angle"] *= float(state[ANGLE_FACTOR])
            n = self._at_this_step(n)
            weights = one.weights()
            buffers = [one.units.rows([state[name]])[0] for name in self.buffers]
            (rows,), (gradient,) = one.units.rows(weights), one.units.rows(one.gradients(weights))
            w, g = rows.double(), gradient.double()
            turns = torch.zeros(len(w), 1, dtype=torch.bool, device=w.device)
            if member.turns:
                radius = state["radius"].double()[:, None]
                turns = (radius > 0) & (w.norm(dim=1, keepdim=True) > 0)
                n["radius"] = torch.where(turns, radius, 1.0)
                n["update_norm"] = state["update_norm"].double()[:, None] if self.averages else 0.0
            if self.couples:
                g = g + n["weight_decay"] * (~turns).double() * w
            u = self._reference_direction(n, g, buffers)
            a, b = self._ordinary_factors(n)
            after = a * w + b * u
            if member.turns:
                turned, update_norm = self._reference_turn(n, w, u)
                after = torch.where(turns & (n["lr"] != 0), turned, after)
                if update_norm is not None:
                    state["update_norm"].copy_(update_norm.flatten())
            rows.copy_(after)
            one.put_back(weights)

    # --------------------------------------------------------------------- checkpoints

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; the weights must be those that it was saved beside.

        Raises:
            ValueError: It was made by another optimizer, or with other parameter groups or
                another order of them.
        """
        refuse_other_groups(self, state_dict, self.buffers)
        super().load_state_dict(state_dict)
        adopt_loaded_state(self, state_dict)
        self._forget()
        self._loaded = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
            if self.rotates:
                group.setdefault("peak_lr", group["lr"])

    def _forget(self) -> None:
        """Look at parameters, groups and state anew at the next step."""
        self._key, self._found = [], []
        self._loaded = False
        self._warned = False


def _evaluate(closure: Callable[[], Any] | None) -> Any:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
