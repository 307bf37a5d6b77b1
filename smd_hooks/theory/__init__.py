"""What an optimizer's hyperparameters say a scale-invariant weight must do. Floats only."""

from .assumptions import Assumptions, check_assumptions
from .diffusion import decay_factor, decay_rate, direction_memory, step_exponent
from .equilibrium import (
    drifting_equilibrium_angle,
    equilibrium_angle,
    equilibrium_norm,
    relaxation_time,
    relaxation_times,
    rescale_factor,
)
from .gradient_noise import NoiseAverage, two_batch_estimate
from .preconditioning import preconditioned_radial, unlike_parts
from .representation import predicted_representation_change, snr_step_factor
from .rotation import (
    inverse_bias_factor,
    is_rotational,
    lion_ar_constant,
    peak_lr_of,
    rotation_constant,
    sign_rotation_constant,
    step_angle,
)
from .rule_readers import register_rule
from .second_moments import StepMoments, driving_moment, early_excess
from .trajectory import Trajectory, relaxation_ratio, second_moment_trajectory
from .update_rules import AdamRule, LionRule, NoPrediction, RotationalRule, SGDRule, UpdateRule

__all__ = [
    "AdamRule",
    "Assumptions",
    "LionRule",
    "NoPrediction",
    "NoiseAverage",
    "RotationalRule",
    "SGDRule",
    "StepMoments",
    "Trajectory",
    "UpdateRule",
    "check_assumptions",
    "decay_factor",
    "decay_rate",
    "direction_memory",
    "drifting_equilibrium_angle",
    "driving_moment",
    "early_excess",
    "equilibrium_angle",
    "equilibrium_norm",
    "inverse_bias_factor",
    "is_rotational",
    "lion_ar_constant",
    "peak_lr_of",
    "preconditioned_radial",
    "predicted_representation_change",
    "register_rule",
    "relaxation_ratio",
    "relaxation_time",
    "relaxation_times",
    "rescale_factor",
    "rotation_constant",
    "second_moment_trajectory",
    "sign_rotation_constant",
    "snr_step_factor",
    "step_angle",
    "step_exponent",
    "two_batch_estimate",
    "unlike_parts",
]
