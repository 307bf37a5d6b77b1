# The same run with scale-invariant weights rescaled to their new equilibrium at each lr drop.
_base_ = ["./resnet_digits_adamw.py"]

custom_hooks = [*_base_.custom_hooks, dict(type="EquilibriumRescaleHook")]
