# Goyal et al.'s recipe with the rotational SGDM of Kosson et al. 2023 (the pairing is ours): all
# else carries over. The angle follows the root of lr at each drop, at once, as equilibrium does.
_base_ = ["./resnet50_goyal_8xb32-90e.py"]

optim_wrapper = dict(optimizer=dict(type="RotationalSGD"))
