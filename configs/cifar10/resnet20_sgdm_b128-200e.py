# Rotational Equilibrium (Kosson et al. 2023; figure number not read), ResNet-20 on CIFAR-10, SGDM,
# batch 128.
_base_ = ["../_base_/cifar10.py", "../_base_/cifar_resnet20.py", "../_base_/cosine_200e.py"]

optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.5, momentum=0.9, weight_decay=1e-4))
