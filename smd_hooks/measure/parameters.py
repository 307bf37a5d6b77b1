"""What may be measured, and by which name."""

from __future__ import annotations

from torch import Tensor

_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def is_measurable(parameter: Tensor) -> bool:
    """Whether a parameter is a matrix of real numbers: two or more dimensions, not empty.

    Quantized (integer) and complex weights have no angle here.
    """
    return parameter.ndim >= 2 and parameter.is_floating_point() and parameter.numel() > 0


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
