# SMD (Wan et al.), Fig. 4, SGDM with rescaling: the same run, with scale-invariant weights put on
# their new equilibrium norm at each drop.
_base_ = ["./resnet18_sgdm_b128-200e.py"]

custom_hooks = [*_base_.custom_hooks, dict(type="EquilibriumRescaleHook")]
