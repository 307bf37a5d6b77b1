"""What a weight's output meets first, read off the autograd graph of one forward pass.

The gradient decides whether a weight is scale-invariant; this module says why, and rules
out what early gradients may not show yet (a bias that is still 0, say). It works on any
network, because it looks at what was computed and not at module names: from each weight
it follows the output through positively homogeneous operations (ReLU, pooling,
reshaping) to the first operation that is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from .autograd_graph import (
    LINEAR,
    PIECEWISE_LINEAR,
    Graph,
    has_bias,
    is_homogeneous,
    is_kind,
    is_norm,
    kind_of,
    other_is_constant,
    own_size,
    parameter_beside,
)
from .parameters import is_matrix_shape

# what certainly ends scale invariance, whatever a few early gradients look like
_ACTIVATIONS = ("Hardtanh", "Hardsigmoid", "Hardswish", "Gelu", "Silu", "Sigmoid", "Tanh", "Elu")
_SUMS = ("Add", "Sub")
# nodes behind which there are many operations; gradient and graph cannot disagree there
_HIDDEN = {
    "Compiled": "compiled code that cannot be looked into",
    "DifferentiableGraph": "scripted code that cannot be looked into",
    "Checkpoint": "a checkpointed block that cannot be looked into",
}
_PHRASES = {
    "Add": "a sum with something else (residual, bias or lateral connection)",
    "Sub": "a difference with something else",
    "Mul": "a product (a gate)",
    "Div": "a quotient",
    "Sigmoid": "a sigmoid",
    "Hardsigmoid": "a hard sigmoid",
    "Hardswish": "a hard swish",
    "Tanh": "a tanh",
    "Gelu": "a GELU",
    "Silu": "a SiLU",
    "Softmax": "a softmax",
    "ScaledDotProduct": "an attention (as query or key)",
}


@dataclass(frozen=True)
class Destination:
    """Where a weight's output goes.

    Attributes:
        norms: Names of the norm modules that it meets first (``bn1``); empty names of
            norms without an affine weight are left out.
        reason: In words: what it meets before, or instead of, a norm.
        normalized: Whether every path meets a norm that uses the batch's own statistics;
            None where nothing speaks against it, but a path leads into code that cannot
            be looked into.
        certain: Something was met that rules scale invariance out.
    """

    norms: tuple[str, ...]
    reason: str
    normalized: bool | None
    certain: bool = False


def destinations(graph: Graph) -> dict[str, Destination]:
    """Find what each weight matrix meets first.

    Returns:
        By parameter name; parameters that took no part in the graph are missing.
    """
    return {
        name: trace(leaf, graph).destination()
        for name, leaf in graph.leaves.items()
        if is_matrix_shape(leaf.variable.shape)
    }


@dataclass(frozen=True)
class _Place:
    """A node on the way from a weight.

    Attributes:
        node: The autograd node.
        is_output: Whether the weight's linear operation lies behind us; before it, the
            value is still the weight itself.
        bias: Whether a bias was added to it, and is carried along.
        bent: Whether a ReLU or the like came after that bias.
    """

    node: Any
    is_output: bool = False
    bias: bool = False
    bent: bool = False


@dataclass
class Trace:
    """All that was met on the ways from one weight to its first norms.

    Attributes:
        norms: The norms' module names, "" where one has no parameters.
        others: What was met instead, in words.
        hidden: What was met that cannot be looked into, in words.
        sums: Nodes of the sums that were passed through.
        carried: Nodes whose value grows in proportion to the weight.
        weight_norm: Whether the weight itself is normalized before it is used.
        frozen_norm: Whether a norm used stored statistics.
        with_bias: Whether a bias that the norm does not take out came along.
        certain: Whether something was met that rules scale invariance out.
    """

    norms: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    sums: set[Any] = field(default_factory=set)
    carried: set[Any] = field(default_factory=set)
    weight_norm: bool = False
    frozen_norm: bool = False
    with_bias: bool = False
    certain: bool = False

    @property
    def normalized(self) -> bool | None:
        """Whether every path met a norm that uses the batch's own statistics, if known."""
        if self.others or self.frozen_norm or self.with_bias:
            return False
        return None if self.hidden else bool(self.norms)

    def destination(self) -> Destination:
        """Say it in words."""
        names = tuple(sorted({name for name in self.norms if name}))
        certain = self.certain or self.with_bias or self.frozen_norm
        return Destination(names, self._reason(", ".join(names)), self.normalized, certain)

    def _reason(self, where: str) -> str:
        if self.others or self.hidden:
            met = " and ".join(sorted({*self.others, *self.hidden}))
            place = "beside its norm" if self.norms else "before any norm"
            return f"reaches {met} {place}"
        if self.frozen_norm:
            return "its BatchNorm is in eval mode (norm_eval or frozen statistics)"
        if self.with_bias:
            return "scale-invariant only jointly with its bias"
        if self.weight_norm:
            return "normalized by its weight norm"
        return f"normalized by {where}" if where else "normalized"


def trace(leaf: Any, graph: Graph, through_sums: bool = False) -> Trace:
    """Follow a weight to the first norms, or to what stands in their place.

    Args:
        leaf: The weight's node.
        graph: The graph it is in.
        through_sums: Also follow sums, whose other summand may be scaled along; other
            weights' operations then end the way, since two factors would multiply.
    """
    found = Trace()
    queue = [_Place(leaf)]
    seen = set()
    while queue:
        place = queue.pop()
        if place in seen:
            continue
        seen.add(place)
        found.carried.add(place.node)
        consumers = graph.consumers[place.node]
        if not consumers:
            found.others.append("the loss or the model's output")
        sizes = [(c, own_size(place.node, c, position)) for c, position in consumers]
        inside = {node for _, nodes in sizes for node in nodes or ()}
        by_own_size = {consumer for consumer, nodes in sizes if nodes}
        for consumer, position in consumers:
            kind = kind_of(consumer)
            if consumer in inside:
                continue
            if consumer in by_own_size:
                found.norms.append(_gain_module(consumer, graph))
                found.with_bias |= place.bias
            elif is_kind(kind, LINEAR) and not place.is_output:
                queue.append(_Place(consumer, True, bias=has_bias(consumer, kind)))
            elif is_kind(kind, LINEAR) and _passes(consumer, kind, position, place, through_sums):
                queue.append(replace(place, node=consumer))
            elif is_homogeneous(consumer, kind, position):
                bent = place.bent or (place.bias and is_kind(kind, PIECEWISE_LINEAR))
                queue.append(replace(place, node=consumer, bent=bent))
            elif kind == "Add" and place.is_output and _adds_bias(consumer, position):
                queue.append(replace(place, node=consumer, bias=True))
            elif through_sums and kind in _SUMS and not other_is_constant(consumer):
                found.sums.add(consumer)
                queue.append(replace(place, node=consumer))
            elif kind.startswith("WeightNorm") or (is_norm(kind) and position == 0):
                found.norms.append(graph.module_of(consumer))
                found.weight_norm |= not place.is_output
                found.frozen_norm |= getattr(consumer, "_saved_training", True) is False
                # a batch or instance norm takes a bias per channel out again
                cancels = not place.bent and ("Batch" in kind or "Instance" in kind)
                found.with_bias |= place.bias and not cancels
            elif hidden := [phrase for part, phrase in _HIDDEN.items() if part in kind]:
                found.hidden += hidden
            else:
                found.others.append(_phrase(consumer, kind))
                found.certain |= place.is_output and is_kind(kind, _ACTIVATIONS)
    return found


def _passes(node: Any, kind: str, position: int, place: _Place, through_sums: bool) -> bool:
    """Whether another weight's operation is linear in what comes in, and adds nothing."""
    is_input = position == 0 if kind == "Convolution" else kind in ("Mm", "Bmm")
    return is_input and not (through_sums or place.bias or has_bias(node, kind))


def _adds_bias(node: Any, position: int) -> bool:
    """A Linear on more than two dimensions may add its bias in an operation of its own."""
    bias = parameter_beside(node, position)
    return bias is not None and bias.ndim == 1


def _gain_module(node: Any, graph: Graph) -> str:
    """Name of the module whose gain an RMSNorm without a node of its own multiplies by."""
    while True:
        consumers = [consumer for consumer, _ in graph.consumers[node]]
        if len(consumers) != 1 or kind_of(consumers[0]) not in ("Mul", "ToCopy"):
            return ""
        if kind_of(consumers[0]) == "Mul":
            return graph.module_of(consumers[0])
        node = consumers[0]


def _phrase(node: Any, kind: str) -> str:
    if is_kind(kind, LINEAR):
        takes_a_weight = any(parameter_beside(node, i) is not None for i in range(3))
        return "another weight" if takes_a_weight else "a product of activations (an attention)"
    if kind in _SUMS and other_is_constant(node):
        return "a shift by something without a gradient (an input or a frozen affine norm)"
    if kind.startswith("LogSoftmax"):
        return "the loss or the model's output"
    for start, phrase in _PHRASES.items():
        if kind.startswith(start):
            return phrase
    if "Loss" in kind or "Softmax" in kind or "Entropy" in kind:
        return "the loss or the model's output"
    return f"an operation that is not scale-invariant ({kind})"
