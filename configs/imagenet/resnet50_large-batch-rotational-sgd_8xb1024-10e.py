# Rotational Equilibrium (Kosson et al. 2023; figure number not read), the need for warmup,
# rotational SGDM: the same runs, with weights that turn by their equilibrium angle from the first
# step on.
_base_ = ["./resnet50_large-batch_8xb1024-10e.py"]

optim_wrapper = dict(optimizer=dict(type="RotationalSGD"))
