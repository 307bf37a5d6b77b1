"""Normalized optimizers: weights turn by a set angle and keep their norm. torch only."""

from .lion_a import LionA
from .lion_ar import LionAR
from .param_groups import find_scale_invariant, param_groups
from .rotational_adamw import RotationalAdamW
from .rotational_lion import RotationalLion
from .rotational_sgd import RotationalSGD
from .rotational_update import RotationalUpdate
from .snr_correction import SNRCorrection

__all__ = [
    "LionA",
    "LionAR",
    "RotationalAdamW",
    "RotationalLion",
    "RotationalSGD",
    "RotationalUpdate",
    "SNRCorrection",
    "find_scale_invariant",
    "param_groups",
]
