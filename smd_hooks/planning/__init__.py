"""A config read as a plan: what it will do, before it is trained. The config is executed."""

from .. import hooks as hooks  # registers ours, which a config may name
from .config_forecast import forecast
from .plan import read_plan

__all__ = ["forecast", "read_plan"]
