"""Time-scaled replicas: a long experiment's schedule, kept in relaxation times, in few steps."""

from benchmarks.replicas.replica import VALIDATIONS, Replica, time_scale
from benchmarks.replicas.targets import TASKS, Target, embedded_target, folder_target

__all__ = [
    "TASKS",
    "VALIDATIONS",
    "Replica",
    "Target",
    "embedded_target",
    "folder_target",
    "time_scale",
]
