"""Weights whose outputs are summed before one norm: scale-invariant only together.

norm(A·x + B·y) does not change when A and B grow by the same factor; either alone moves
it. So does a residual stream that ends in norms only: every matrix that writes to it is
one part of a single scale-invariant vector.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .autograd_graph import Graph, inputs_of
from .parameters import is_matrix_shape
from .structure import Trace, trace


@dataclass(frozen=True)
class JointGroup:
    """Weights that are scale-invariant as one concatenated vector, and not one by one.

    Attributes:
        members: Their names, in the model's order.
        statistic: Mean over ``batches`` of the joint z² = (Σ⟨wᵢ, gᵢ⟩)² / ΣΣ(wᵢgᵢ)².
        batches: Batches with a non-zero gradient.
        norms: Names of the norm modules that their sums end in.
        reason: In words.
    """

    members: tuple[str, ...]
    statistic: float
    batches: int
    norms: tuple[str, ...]
    reason: str

    @property
    def name(self) -> str:
        """``a.weight + b.weight``."""
        return " + ".join(self.members)

    def others(self, member: str) -> str:
        """Name the other members, the first few of them."""
        names = [name for name in self.members if name != member]
        rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return ", ".join(names[:3]) + rest

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return asdict(self)


@dataclass(frozen=True)
class Candidate:
    """Weights that the graph lets be a joint group; their gradients have the last word."""

    members: tuple[str, ...]
    norms: tuple[str, ...]


def candidates(graph: Graph) -> list[Candidate]:
    """Find weights joined by sums whose every summand is theirs and that end in norms only.

    A summand that is nobody's output (the input, a normalized branch, a bias that the
    norm leaves in) would not grow along: there is no group then.
    """
    traces = {
        name: trace(leaf, graph, through_sums=True)
        for name, leaf in graph.leaves.items()
        if is_matrix_shape(leaf.variable.shape)
    }
    traces = {name: found for name, found in traces.items() if found.sums}
    found = []
    for members in _joined(traces):
        group = [traces[name] for name in members]
        carried = set().union(*(t.carried for t in group))
        summands = {child for t in group for node in t.sums for child in inputs_of(node)}
        if len(members) > 1 and summands <= carried and all(t.normalized for t in group):
            norms = {norm for t in group for norm in t.norms if norm}
            found.append(Candidate(members, tuple(sorted(norms))))
    return found


def _joined(traces: dict[str, Trace]) -> list[tuple[str, ...]]:
    """Put weights that share a sum into one group, in the order of the weights."""
    groups: list[tuple[list[str], set[Any]]] = []
    for name, found in traces.items():
        members, sums = [name], set(found.sums)
        for other in [group for group in groups if group[1] & sums]:
            groups.remove(other)
            members, sums = other[0] + members, sums | other[1]
        groups.append((members, sums))
    order = {name: i for i, name in enumerate(traces)}
    return [tuple(sorted(members, key=order.__getitem__)) for members, _ in groups]
