"""Training in bfloat16, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Runs the forward pass under torch's autocast to bfloat16; weights and steps stay float32.

    MMEngine's ``AmpOptimWrapper(dtype='bfloat16')`` needs a GPU, and scales the loss, which
    bfloat16's range makes needless. Validation is in float32.

    Example::

        custom_imports = dict(imports=['benchmarks.pipelines.precision'])
        optim_wrapper = dict(type='BFloat16OptimWrapper', optimizer=dict(type='AdamW', lr=6e-4))
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Cast what is computed inside; let gradients of accumulated batches wait, as OptimWrapper.

        Args:
            model: The model that runs inside.
        """
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield
