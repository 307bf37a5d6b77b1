"""What an optimizer's hyperparameters say a scale-invariant weight must do. Floats only."""

from .equilibrium import equilibrium_angle, equilibrium_norm, relaxation_time, rescale_factor
from .trajectory import (
    Trajectory,
    driving_moment,
    relaxation_ratio,
    second_moment_trajectory,
)
from .update_rules import NoPrediction, UpdateRule

__all__ = [
    "NoPrediction",
    "Trajectory",
    "UpdateRule",
    "driving_moment",
    "equilibrium_angle",
    "equilibrium_norm",
    "relaxation_ratio",
    "relaxation_time",
    "rescale_factor",
    "second_moment_trajectory",
]
