# SMD (Wan et al.), Fig. 3, ImageNet: ResNet-50 by the recipe of Goyal et al., "Accurate, Large
# Minibatch SGD" (2017), as far as SMD gives it: SGDM of momentum .9 (a heavy ball), .1, ÷10 at 30,
# 60 and 80 of 90 epochs. Their 5 epochs of warmup are for larger batches than this one.
_base_ = ["../_base_/resnet50.py"]

param_scheduler = dict(type="MultiStepLR", by_epoch=True, milestones=[30, 60, 80], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=90, val_interval=1)
