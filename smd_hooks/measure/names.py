"""Parameter names without what wrappers put into them."""

from __future__ import annotations

_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def plain_name(name: str) -> str:
    """Strip what DDP, ``torch.compile``, FSDP and activation checkpointing add.

    ``module`` goes at the start only: further in it is somebody's own name.

    >>> plain_name("module._orig_mod.layer._checkpoint_wrapped_module.conv.weight")
    'layer.conv.weight'
    """
    parts = name.split(".")
    while parts and parts[0] in _WRAPPERS:
        parts = parts[1:]
    return ".".join(part for part in parts if part not in _WRAPPERS[1:])
