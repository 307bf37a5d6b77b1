# Rotational Equilibrium (Kosson et al. 2023; figure number not read), ImageNet, rotational SGDM:
# learning rate, weight decay and momentum carry over as they are. All matrices turn, the classifier
# too (ours).
_base_ = ["./resnet50_cosine_8xb32-90e.py"]

optim_wrapper = dict(optimizer=dict(type="RotationalSGD"))
