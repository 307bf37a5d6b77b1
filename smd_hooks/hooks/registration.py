"""Puts the optimizers where MMEngine configs find them."""

from __future__ import annotations

from mmengine.registry import OPTIMIZERS

from ..optim import LionA, LionAR, RotationalAdamW, RotationalLion, RotationalSGD

for optimizer in (LionA, LionAR, RotationalAdamW, RotationalLion, RotationalSGD):
    OPTIMIZERS.register_module(module=optimizer)
