"""Finds host synchronisation without a GPU: nothing may read a value while it measures."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoHostRead(TorchDispatchMode):
    """Within it ``tensor.item()`` raises, and so do ``float`` and ``bool`` of a tensor."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if operation is torch.ops.aten._local_scalar_dense.default:
            raise AssertionError("a tensor's value was read on the host")
        return operation(*args, **(kwargs or {}))
