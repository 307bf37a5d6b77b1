"""The autograd graph of one forward pass, and what its operations do to a scaled input.

Read as ``f(k·x)`` for k > 0: linear operations, ReLU and pooling hand the factor on,
norms take it out, everything else does something that no factor describes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

NORMS = ("BatchNorm", "GroupNorm", "LayerNorm", "InstanceNorm", "RMSNorm", "RmsNorm")
LINEAR = ("Convolution", "Addmm", "Mm", "Bmm", "Linear", "Baddbmm", "Embedding")
# f(k·x) = k·f(x) for k > 0
PIECEWISE_LINEAR = ("Relu", "LeakyRelu", "Prelu", "PreluKernel")
_LINEAR_OR_MAXIMUM = (
    *("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "MaxPool2DWithIndices"),
    *("MaxPool3DWithIndices", "Mean", "Sum", "Upsample", "RoIAlign", "Dropout", "Neg"),
    *("View", "Reshape", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Expand"),
    *("Slice", "Select", "Index", "IndexPut", "CopySlices", "Cat", "Stack", "Split", "Unbind"),
    *("SplitWithSizes", "Chunk", "Clone", "ToCopy", "Alias", "Squeeze", "Unsqueeze", "Roll"),
    *("Contiguous", "AsStrided", "ConstantPadNd", "ReflectionPad", "ReplicationPad", "Flip"),
    *("Repeat", "PixelShuffle", "PixelUnshuffle"),
)
_VIEWS = ("View", "Reshape", "Expand", "Repeat", "Unsqueeze", "Squeeze", "ToCopy", "T")
# powers by which a size grows with its tensor; Pow is asked for its exponent
_SIZE_POWERS = {"Rsqrt": -0.5, "Sqrt": 0.5, "Reciprocal": -1.0}
_SIZE_LINEAR = ("Mean", "Sum", "Clamp", "ClampMin", "Expand", "LinalgVectorNorm", "Norm", "ToCopy")


@dataclass(frozen=True)
class Graph:
    """One forward pass, to be read from the weights towards the outputs.

    Attributes:
        consumers: For each autograd node, who takes its output, and as which input.
        names: Parameter names by the parameter's ``id``.
        leaves: The graph's node of each parameter, by name; a parameter that took no
            part is missing.
    """

    consumers: Mapping[Any, list[tuple[Any, int]]]
    names: Mapping[int, str]
    leaves: Mapping[str, Any]

    @classmethod
    def of(cls, outputs: Any, model: nn.Module) -> Graph:
        """Read the graph behind what ``model`` returned in training.

        Args:
            outputs: Tensors, or nested dicts and sequences of them.
            model: The model whose parameters are looked for.
        """
        roots = [t.grad_fn for t in tensors(outputs) if t.grad_fn is not None]
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
        leaves = {id(node.variable): node for node in consumers if hasattr(node, "variable")}
        names = {id(p): name for name, p in model.named_parameters()}
        return cls(consumers, names, {n: leaves[i] for i, n in names.items() if i in leaves})

    def module_of(self, node: Any) -> str:
        """Name of the module whose parameter an operation takes, "" if it takes none."""
        for child, _ in node.next_functions:
            variable = getattr(_behind_views(child), "variable", None)
            if variable is not None and id(variable) in self.names:
                return self.names[id(variable)].rpartition(".")[0]
        return ""


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested dicts and sequences."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def kind_of(node: Any) -> str:
    """``torch::autograd::ConvolutionBackward0`` → ``Convolution``."""
    name = node.name().rsplit("::", 1)[-1]
    name = name.split("Backward")[0].removesuffix("Function")
    return str(name.removeprefix("Native").removeprefix("Cudnn").removeprefix("Miopen"))


def is_kind(kind: str, family: tuple[str, ...]) -> bool:
    """Whether a kind belongs to a family, whatever its dimension (``MaxPool2D``)."""
    return any(kind == member or kind.rstrip("0123456789D") == member for member in family)


def is_norm(kind: str) -> bool:
    """Whether it is a norm with a node of its own."""
    return any(norm in kind for norm in NORMS)


def inputs_of(node: Any) -> list[Any]:
    """Its inputs' nodes; None for an input without a gradient."""
    return [child for child, _ in node.next_functions]


def other_is_constant(node: Any) -> bool:
    """Whether only one of its inputs has a gradient."""
    return sum(child is not None for child in inputs_of(node)) == 1


def parameter_beside(node: Any, position: int) -> Tensor | None:
    """The parameter that stands beside the input at ``position``: a learned scale or bias."""
    others = [child for i, child in enumerate(inputs_of(node)) if i != position]
    found = [getattr(_behind_views(child), "variable", None) for child in others]
    return found[0] if found else None


def has_bias(node: Any, kind: str) -> bool:
    """Convolution keeps its bias as the third input, a Linear as the first of addmm's."""
    if kind == "Convolution":
        inputs = inputs_of(node)
        return len(inputs) > 2 and inputs[2] is not None
    return kind in ("Addmm", "Baddbmm")


def is_homogeneous(node: Any, kind: str, position: int) -> bool:
    """Whether f(k·x) = k·f(x) for k > 0, x being the input at ``position``."""
    if kind == "Mul" or (kind == "Div" and position == 0):
        return other_is_constant(node) or parameter_beside(node, position) is not None
    if kind.startswith("WeightNorm"):
        return position == 1  # the gain; at 0 stands what it normalizes
    if kind.startswith("ScaledDotProduct"):
        return position == 2  # the values; queries and keys go through a softmax
    return is_kind(kind, (*PIECEWISE_LINEAR, *_LINEAR_OR_MAXIMUM)) or kind.startswith("Upsample")


def own_size(node: Any, consumer: Any, position: int) -> list[Any] | None:
    """The operations of x·rsqrt(mean(x²)) and its like between x and the last product.

    An RMSNorm has no node of its own where no fused kernel was used; it is recognized
    by what it does: x times something of degree −1 in x, or over something of degree 1.

    Args:
        node: What computed x.
        consumer: A product or quotient that takes x.
        position: As which input.

    Returns:
        The nodes between, or None if this is no such norm.
    """
    kind, inputs = kind_of(consumer), inputs_of(consumer)
    if len(inputs) != 2 or kind not in ("Mul", "Div") or (kind == "Div" and position == 1):
        return None
    chain: list[Any] = []
    degree, at = 1.0, inputs[1 - position]
    while at is not node:
        step = None if at is None else _size_power(at)
        if step is None:
            return None
        chain.append(at)
        degree *= step
        at = next(child for child in inputs_of(at) if child is not None)
    return chain if chain and degree == (1.0 if kind == "Div" else -1.0) else None


def _size_power(node: Any) -> float | None:
    """The degree of a size's operation in its one input; None if it is no such operation."""
    kind, inputs = kind_of(node), [child for child in inputs_of(node) if child is not None]
    if not inputs or any(child is not inputs[0] for child in inputs):
        return None
    if kind == "Mul" and len(inputs) == 2:
        return 2.0
    if kind == "Pow":
        exponent = node._saved_exponent
        if isinstance(exponent, Tensor) and exponent.numel() != 1:
            return None
        return float(exponent)
    if kind in _SIZE_POWERS:
        return _SIZE_POWERS[kind]
    # a constant that is added is an eps
    return 1.0 if is_kind(kind, (*_SIZE_LINEAR, "Add")) and len(inputs) == 1 else None


def _behind_views(node: Any) -> Any:
    while node is not None and is_kind(kind_of(node), _VIEWS):
        node = inputs_of(node)[0]
    return node
