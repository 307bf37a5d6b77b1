"""What a network really does at each optimizer step. torch only, no MMEngine."""

from .geometry import radial_statistic
from .gradient_noise import GradientNoiseProbe
from .invariance import ScaleInvarianceObserver, Verdict
from .invariance_watch import Findings, InvarianceWatch
from .joint_groups import JointGroup
from .probe import StepProbe
from .representation import RepresentationProbe

__all__ = [
    "Findings",
    "GradientNoiseProbe",
    "InvarianceWatch",
    "JointGroup",
    "RepresentationProbe",
    "ScaleInvarianceObserver",
    "StepProbe",
    "Verdict",
    "radial_statistic",
]
