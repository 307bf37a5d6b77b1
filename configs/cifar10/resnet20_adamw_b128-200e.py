# Rotational Equilibrium (Kosson et al. 2023; figure number not read), ResNet-20 on CIFAR-10, AdamW,
# batch 128: 200 epochs, 5 of them warmup, then a cosine to 0; 3 seeds. Augmentation and decay on
# matrices only are ours.
_base_ = ["../_base_/cifar10.py", "../_base_/cifar_resnet20.py", "../_base_/cosine_200e.py"]

optim_wrapper = dict(optimizer=dict(type="AdamW", lr=0.05, weight_decay=0.01))
