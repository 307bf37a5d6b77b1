# Rotational Equilibrium (Kosson et al. 2023), ImageNet: ResNet-50 under SGDM at batch 256, learning
# rate .1 with one epoch of warmup and a cosine to 0 over 90, weight decay 1e-4; the last gains of
# the residual branches begin at 1. Whether theirs let norms and biases decay was not readable: here
# they do not.
_base_ = ["../_base_/imagenet.py", "../_base_/resnet50.py"]

model = dict(arch_options=dict(zero_init_residual=False))
param_scheduler = [
    dict(
        type="LinearLR",
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=1,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingLR",
        T_max=89,
        eta_min=0.0,
        by_epoch=True,
        begin=1,
        end=90,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=90, val_interval=1)
