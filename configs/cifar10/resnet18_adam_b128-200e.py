# SMD (Wan et al.), Fig. 4, Adam: the same stages. Learning rate and weight decay, which Adam adds
# to the gradient, were not readable: Adam's default and SGDM's decay are ours.
_base_ = ["./resnet18_sgdm_b128-200e.py"]

optim_wrapper = dict(optimizer=dict(_delete_=True, type="Adam", lr=1e-3, weight_decay=5e-4))
