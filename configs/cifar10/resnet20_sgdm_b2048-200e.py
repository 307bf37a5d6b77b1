# Rotational Equilibrium (Kosson et al. 2023; figure number not read), ResNet-20 on CIFAR-10, SGDM,
# batch 2,048.
_base_ = ["./resnet20_sgdm_b128-200e.py"]

train_dataloader = dict(batch_size=2048)
auto_scale_lr = dict(base_batch_size=2048)
optim_wrapper = dict(optimizer=dict(lr=4.8))
