# The same run, with scale-invariant weights put on their new equilibrium norm at each drop, as in
# SMD's Fig. 3 (ours, in no paper).
_base_ = ["./resnet50_adamw_8xb32-90e.py"]

custom_hooks = [*_base_.custom_hooks, dict(type="EquilibriumRescaleHook")]
