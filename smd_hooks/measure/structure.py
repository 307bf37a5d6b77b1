"""What a weight's output meets first, read off the autograd graph of one forward pass.

The gradient decides whether a weight is scale-invariant; this module says why, and rules
out what early gradients may not show yet (a bias that is still 0, say). It works on any
network, because it looks at what was computed and not at module names: from each weight
it follows the output through positively homogeneous operations (ReLU, pooling,
reshaping) to the first operation that is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

_NORMS = ("BatchNorm", "GroupNorm", "LayerNorm", "InstanceNorm", "RMSNorm", "RmsNorm")
_LINEAR = ("Convolution", "Addmm", "Mm", "Bmm", "Linear", "Baddbmm")
# f(k·x) = k·f(x) for k > 0
_PIECEWISE_LINEAR = ("Relu", "LeakyRelu", "Prelu", "PreluKernel")
_LINEAR_OR_MAXIMUM = (
    *("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "MaxPool2DWithIndices"),
    *("MaxPool3DWithIndices", "Mean", "Sum", "Upsample", "RoIAlign", "Dropout"),
    *("View", "Reshape", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Expand"),
    *("Slice", "Select", "Index", "IndexPut", "CopySlices", "Cat", "Stack", "Split", "Unbind"),
    *("SplitWithSizes", "Chunk", "Clone", "ToCopy", "Alias", "Squeeze", "Unsqueeze"),
    *("Contiguous", "AsStrided", "ConstantPadNd", "ReflectionPad", "ReplicationPad"),
)
# what certainly ends scale invariance, whatever a few early gradients look like
_ACTIVATIONS = ("Hardtanh", "Hardsigmoid", "Hardswish", "Gelu", "Silu", "Sigmoid", "Tanh", "Elu")
_PHRASES = {
    "Add": "a sum with something else (residual, bias or lateral connection)",
    "Sub": "a difference with something else",
    "Mul": "a product (gate or learned scale)",
    "Div": "a quotient",
    "Sigmoid": "a sigmoid",
    "Tanh": "a tanh",
    "Gelu": "a GELU",
    "Silu": "a SiLU",
    "Softmax": "a softmax",
    "ScaledDotProduct": "an attention",
}


@dataclass(frozen=True)
class Destination:
    """Where a weight's output goes.

    Attributes:
        norms: Names of the norm modules that it meets first (``bn1``); empty names of
            norms without an affine weight are left out.
        reason: In words: what it meets before, or instead of, a norm.
        normalized: Every path meets a norm that uses the batch's own statistics.
        certain: Something was met that rules scale invariance out.
    """

    norms: tuple[str, ...]
    reason: str
    normalized: bool
    certain: bool = False


def destinations(outputs: Any, model: nn.Module) -> dict[str, Destination]:
    """Find what each weight matrix of ``model`` meets first.

    Args:
        outputs: What the model returned in training: tensors, or nested dicts and
            sequences of them, with their autograd graph.
        model: The model that was called.

    Returns:
        By parameter name; parameters that took no part in the graph are missing.
    """
    consumers = _consumers(outputs)
    leaves = {id(node.variable): node for node in consumers if hasattr(node, "variable")}
    names = {id(p): name for name, p in model.named_parameters()}
    found = {}
    for name, parameter in model.named_parameters():
        leaf = leaves.get(id(parameter))
        if leaf is not None and parameter.ndim >= 2:
            found[name] = _destination(leaf, consumers, names)
    return found


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _consumers(outputs: Any) -> dict[Any, list[tuple[Any, int]]]:
    """Invert the graph: for each node, who takes its output, as which input."""
    roots = [t.grad_fn for t in _tensors(outputs) if t.grad_fn is not None]
    consumers: dict[Any, list[tuple[Any, int]]] = {node: [] for node in roots}
    queue = list(consumers)
    while queue:
        node = queue.pop()
        for position, (child, _) in enumerate(node.next_functions):
            if child is None:
                continue
            if child not in consumers:
                consumers[child] = []
                queue.append(child)
            consumers[child].append((node, position))
    return consumers


def _kind(node: Any) -> str:
    """``torch::autograd::ConvolutionBackward0`` → ``Convolution``."""
    name = node.name().rsplit("::", 1)[-1]
    name = name.split("Backward")[0].removesuffix("Function")
    return str(name.removeprefix("Native").removeprefix("Cudnn").removeprefix("Miopen"))


def _is(kind: str, family: tuple[str, ...]) -> bool:
    return any(kind == member or kind.rstrip("0123456789D") == member for member in family)


def _norm_module(node: Any, names: Mapping[int, str]) -> str:
    """Name of the module whose affine weight a norm node holds."""
    for child, _ in node.next_functions:
        variable = getattr(child, "variable", None)
        if variable is not None and id(variable) in names:
            return names[id(variable)].rpartition(".")[0]
    return ""


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


def _destination(
    leaf: Any, consumers: Mapping[Any, list[tuple[Any, int]]], names: Mapping[int, str]
) -> Destination:
    norms: list[str] = []
    others: list[str] = []
    frozen_norm = joint = certain = False
    queue = [_Place(leaf)]
    seen = set()
    while queue:
        place = queue.pop()
        if place in seen:
            continue
        seen.add(place)
        if not consumers[place.node]:
            others.append("the loss or the model's output")
        for consumer, position in consumers[place.node]:
            kind = _kind(consumer)
            if _is(kind, _LINEAR) and not place.is_output:
                queue.append(_Place(consumer, True, bias=_has_bias(consumer, kind)))
            elif _is(kind, _LINEAR) and _passes_through(consumer, kind, position, place):
                queue.append(replace(place, node=consumer))
            elif _is_homogeneous(consumer, kind, position):
                bent = place.bent or (place.bias and _is(kind, _PIECEWISE_LINEAR))
                queue.append(replace(place, node=consumer, bent=bent))
            elif place.is_output and _is_norm(kind) and position == 0:
                norms.append(_norm_module(consumer, names))
                frozen_norm |= getattr(consumer, "_saved_training", True) is False
                # a batch or instance norm takes a bias per channel out again
                cancels = not place.bent and ("Batch" in kind or "Instance" in kind)
                joint |= place.bias and not cancels
            else:
                others.append(_phrase(consumer, kind))
                certain |= place.is_output and _is(kind, _ACTIVATIONS)
    return Destination(
        norms=tuple(sorted({n for n in norms if n})),
        reason=_reason(norms, others, frozen_norm, joint),
        normalized=bool(norms) and not others and not frozen_norm and not joint,
        certain=certain or joint,
    )


def _has_bias(node: Any, kind: str) -> bool:
    """Convolution keeps its bias as the third input, a Linear as the first of addmm's."""
    inputs = [child for child, _ in node.next_functions]
    if kind == "Convolution":
        return len(inputs) > 2 and inputs[2] is not None
    return kind in ("Addmm", "Baddbmm")


def _passes_through(node: Any, kind: str, position: int, place: _Place) -> bool:
    """Whether another weight's operation is linear in what comes in, and adds nothing."""
    is_input = position == 0 if kind == "Convolution" else kind in ("Mm", "Bmm")
    return is_input and not place.bias and not _has_bias(node, kind)


def _is_norm(kind: str) -> bool:
    return any(norm in kind for norm in _NORMS)


def _is_homogeneous(node: Any, kind: str, position: int) -> bool:
    if kind == "Mul" or (kind == "Div" and position == 0):
        return _other_is_constant(node)
    homogeneous = _is(kind, (*_PIECEWISE_LINEAR, *_LINEAR_OR_MAXIMUM))
    return homogeneous or kind.startswith("Upsample")


def _other_is_constant(node: Any) -> bool:
    return sum(child is not None for child, _ in node.next_functions) == 1


def _phrase(node: Any, kind: str) -> str:
    if _is(kind, _LINEAR):
        return "another weight"
    if kind in ("Add", "Sub") and _other_is_constant(node):
        return "a shift by something without a gradient (a target or a frozen affine norm)"
    if kind.startswith("LogSoftmax"):
        return "the loss or the model's output"
    for start, phrase in _PHRASES.items():
        if kind.startswith(start):
            return phrase
    if "Compiled" in kind:
        return "compiled code that cannot be looked into"
    if "Checkpoint" in kind:
        return "a checkpointed block that cannot be looked into"
    if "Loss" in kind or "Softmax" in kind or "Entropy" in kind:
        return "the loss or the model's output"
    return f"an operation that is not scale-invariant ({kind})"


def _reason(norms: list[str], others: list[str], frozen_norm: bool, joint: bool) -> str:
    where = ", ".join(sorted({n for n in norms if n}))
    if others:
        met = " and ".join(sorted(set(others)))
        return f"reaches {met} before any norm" if not norms else f"reaches {met} beside its norm"
    if frozen_norm:
        return "its BatchNorm is in eval mode (norm_eval or frozen statistics)"
    if joint:
        return "scale-invariant only jointly with its bias"
    return f"normalized by {where}" if where else "normalized"
