"""MMEngine adapters, one hook a file."""

from . import registration as registration
from .equilibrium_rescale_hook import EquilibriumRescaleHook
from .rotational_update_hook import RotationalUpdateHook
from .smd_hook import SMDHook
from .snr_correction_hook import SNRCorrectionHook

__all__ = ["EquilibriumRescaleHook", "RotationalUpdateHook", "SMDHook", "SNRCorrectionHook"]
