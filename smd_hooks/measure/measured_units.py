"""What a probe measures: an optimizer's matrices, and groups of them, each with an index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor
from torch.optim import Optimizer

from .parameters import is_measurable, plain_name
from .sharding import is_sharded, refuse_what_cannot_be_measured

NamedParameters = Iterable[tuple[str, Tensor]]


class MeasuredUnits:
    """An optimizer's matrices and the joint groups among them; indices are for good.

    Args:
        optimizer: The optimizer.
        named_parameters: The model's parameters with their names, or what returns them.

    Raises:
        RuntimeError: The optimizer hides its steps or its weights.

    Attributes:
        names: Names in the order of the indices.
        weights: The parameters by index.
        groups: Members of each joint group, by index.
        group_of: The number of each parameter's group in the optimizer, by index; of one
            that was taken out, the last.
        held: Indices of the parameters that the optimizer holds now.
        is_sharded: Whether one of them is a DTensor.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        named_parameters: NamedParameters | Callable[[], NamedParameters],
    ) -> None:
        if not callable(named_parameters):
            named_parameters = list(named_parameters).copy
        refuse_what_cannot_be_measured(optimizer, [p for _, p in named_parameters()])
        self._optimizer = optimizer
        self._named_parameters = named_parameters
        self._layout: list[list[int]] | None = None
        self.names: list[str] = []
        self.weights: dict[int, Tensor] = {}
        self.groups: dict[int, tuple[int, ...]] = {}
        self.group_of: dict[int, int] = {}
        self.held: set[int] = set()
        self.is_sharded = False
        self.find()

    def find(self) -> None:
        """Look through the optimizer's groups; parameters may have been added or moved."""
        groups = [group["params"] for group in self._optimizer.param_groups]
        layout = [[id(p) for p in group] for group in groups]
        if layout == self._layout:
            return
        self._layout = layout
        held = {key: g for g, keys in enumerate(layout) for key in keys}
        named = {id(p): (plain_name(name), p) for name, p in self._named_parameters()}
        for i, p in enumerate(p for group in groups for p in group):
            named.setdefault(id(p), (f"optimizer.{i}", p))
        known = {id(w) for w in self.weights.values()}
        for key, (name, p) in named.items():
            if key in held and key not in known and is_measurable(p):
                self.weights[len(self.names)] = p
                self.names.append(name)
        self.held = {i for i, w in self.weights.items() if id(w) in held}
        self.is_sharded = any(is_sharded(w) for w in self.weights.values())
        self.group_of.update({i: held[id(self.weights[i])] for i in self.held})

    def join(self, members: Sequence[str]) -> int:
        """Give several weights an index as one; see :meth:`StepProbe.join`."""
        index_of = {name: i for i, name in enumerate(self.names)}
        indices = tuple(index_of[name] for name in members)
        for index, known in self.groups.items():
            if known == indices:
                return index
        self.names.append(" + ".join(members))
        self.groups[len(self.names) - 1] = indices
        return len(self.names) - 1
