"""What a weight's output meets first, read off the autograd graph of one forward pass.

The gradient decides whether a weight is scale-invariant; this module says why. It works
on any network, because it looks at what was computed and not at module names: from each
weight it follows the output through positively homogeneous operations (ReLU, pooling,
reshaping) to the first operation that is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

_NORMS = ("BatchNorm", "GroupNorm", "LayerNorm", "InstanceNorm", "RMSNorm")
_LINEAR = ("Convolution", "Addmm", "Mm", "Bmm", "Linear", "Baddbmm")
# f(k·x) = k·f(x) for k > 0; concatenation and splitting keep channels apart
_HOMOGENEOUS = (
    *("Relu", "LeakyRelu", "MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "Mean"),
    *("Sum", "View", "Reshape", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T"),
    *("Slice", "Select", "Index", "Cat", "Stack", "Split", "SplitWithSizes", "Chunk", "Unbind"),
    *("Clone", "ToCopy", "Alias", "Expand", "Squeeze", "Unsqueeze", "Contiguous", "AsStrided"),
    *("Dropout", "Upsample", "ConstantPadNd", "RoIAlign", "MaxPool2DWithIndices", "IndexPut"),
)
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
    """

    norms: tuple[str, ...]
    reason: str
    normalized: bool


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


def _destination(
    leaf: Any, consumers: Mapping[Any, list[tuple[Any, int]]], names: Mapping[int, str]
) -> Destination:
    norms: list[str] = []
    others: list[str] = []
    frozen_norm = False
    # A weight is at first only itself; its output begins at its linear operation.
    queue = [(leaf, False)]
    seen = set()
    while queue:
        node, is_output = queue.pop()
        if (node, is_output) in seen:
            continue
        seen.add((node, is_output))
        if not consumers[node]:
            others.append("the loss or the model's output")
        for consumer, position in consumers[node]:
            kind = _kind(consumer)
            if not is_output and _is(kind, _LINEAR):
                queue.append((consumer, True))
            elif _is_homogeneous(consumer, kind, position):
                queue.append((consumer, is_output))
            elif is_output and _is_norm(kind) and position == 0:
                norms.append(_norm_module(consumer, names))
                frozen_norm |= getattr(consumer, "_saved_training", True) is False
            else:
                others.append(_phrase(consumer, kind))
    return Destination(
        norms=tuple(sorted({n for n in norms if n})),
        reason=_reason(norms, others, frozen_norm),
        normalized=bool(norms) and not others and not frozen_norm,
    )


def _is_norm(kind: str) -> bool:
    return any(norm in kind for norm in _NORMS)


def _is_homogeneous(node: Any, kind: str, position: int) -> bool:
    if kind == "Mul" or (kind == "Div" and position == 0):
        return _other_is_constant(node)
    return _is(kind, _HOMOGENEOUS) or kind.startswith("Upsample")


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


def _reason(norms: list[str], others: list[str], frozen_norm: bool) -> str:
    where = ", ".join(sorted({n for n in norms if n}))
    if others:
        met = " and ".join(sorted(set(others)))
        return f"reaches {met} before any norm" if not norms else f"reaches {met} beside its norm"
    if frozen_norm:
        return "its BatchNorm is in eval mode (norm_eval or frozen statistics)"
    return f"normalized by {where}" if where else "normalized"
