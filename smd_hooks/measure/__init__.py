"""What a network really does at each optimizer step. torch only, no MMEngine."""

from .geometry import radial_statistic, step_statistics
from .invariance import ScaleInvarianceObserver, Verdict
from .probe import StepProbe

__all__ = [
    "ScaleInvarianceObserver",
    "StepProbe",
    "Verdict",
    "radial_statistic",
    "step_statistics",
]
