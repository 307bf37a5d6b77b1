# Rotational Equilibrium (Kosson et al. 2023; figure number not read), ResNet-20 on CIFAR-10,
# rotational AdamW, batch 2,048: learning rate and weight decay carry over as they are.
_base_ = ["./resnet20_adamw_b2048-200e.py"]

optim_wrapper = dict(optimizer=dict(type="RotationalAdamW"))
