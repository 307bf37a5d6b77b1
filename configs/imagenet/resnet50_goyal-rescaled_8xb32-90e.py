# SMD (Wan et al.), Fig. 3, ImageNet, "rescaled": the same run, with scale-invariant weights put on
# their new equilibrium norm at each drop of the learning rate.
_base_ = ["./resnet50_goyal_8xb32-90e.py"]

custom_hooks = [*_base_.custom_hooks, dict(type="EquilibriumRescaleHook")]
