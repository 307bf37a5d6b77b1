# Rotational Equilibrium (Kosson et al. 2023; figure number not read), Adam with L2 beside AdamW:
# layers turn unequally, for decay passes through the preconditioner. Values not readable: Adam's
# default learning rate and SGDM's usual decay are ours.
_base_ = ["./resnet18_adamw_b128-200e.py"]

optim_wrapper = dict(optimizer=dict(type="Adam", lr=1e-3, weight_decay=5e-4))
