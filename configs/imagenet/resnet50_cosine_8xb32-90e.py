# Rotational Equilibrium (Kosson et al. 2023; figure number not read), ImageNet: ResNet-50 under
# SGDM at batch 256, learning rate .1 with one epoch of warmup and a cosine to 0 over 90, weight
# decay 1e-4; the last gains of the residual branches begin at 1. Whether theirs let norms and
# biases decay was not readable: here they do not.
_base_ = ["../_base_/resnet50.py", "../_base_/cosine.py"]

model = dict(arch_options=dict(zero_init_residual=False))
param_scheduler = [
    dict(_base_.linear_warmup, end=1),
    dict(_base_.cosine_to_zero, begin=1, end=90, T_max=89),
]
train_cfg = dict(by_epoch=True, max_epochs=90, val_interval=1)
