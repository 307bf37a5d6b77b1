"""What may be measured, and by which name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def is_matrix_shape(shape: Sequence[int]) -> bool:
    """Whether two or more of the dimensions are larger than 1.

    A gain or bias may have more dimensions, to be broadcast.

    >>> is_matrix_shape((64, 1, 3, 3)), is_matrix_shape((1, 1, 768)), is_matrix_shape((64, 1, 1))
    (True, False, False)
    """
    return sum(size > 1 for size in shape) >= 2


def is_measurable(parameter: Tensor) -> bool:
    """Whether a parameter is a matrix of real numbers, not empty.

    Quantized (integer) and complex weights have no angle here.
    """
    # ndim first: a lazy module's parameter has no shape yet
    is_matrix = parameter.ndim >= 2 and is_matrix_shape(parameter.shape)
    return is_matrix and parameter.is_floating_point() and parameter.numel() > 0


def plain_name(name: str) -> str:
    """Strip what DDP, ``torch.compile``, FSDP and activation checkpointing add.

    ``module`` goes at the start only: further in it is somebody's own name.

    >>> plain_name("module._orig_mod.layer._checkpoint_wrapped_module.conv.weight")
    'layer.conv.weight'
    """
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts = parts[1:]
    return ".".join(part for part in parts if part not in _WRAPPERS[1:])
