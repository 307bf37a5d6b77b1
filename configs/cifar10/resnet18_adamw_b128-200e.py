# Rotational Equilibrium (Kosson et al. 2023; figure number not read), AdamW beside Adam with L2:
# ResNet-18, CIFAR-10. Their values were not readable; these are the ones that were, for ResNet-20
# at this batch (ours).
_base_ = ["../_base_/cifar10.py", "../_base_/cifar_resnet18.py", "../_base_/cosine_200e.py"]

optim_wrapper = dict(optimizer=dict(type="AdamW", lr=0.05, weight_decay=0.01))
