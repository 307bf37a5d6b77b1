"""MMEngine adapters: the only place in the library that knows MMEngine."""

from . import registration as registration
from .equilibrium_rescale_hook import EquilibriumRescaleHook
from .smd_hook import SMDHook

__all__ = ["EquilibriumRescaleHook", "SMDHook"]
