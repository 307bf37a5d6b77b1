# SMD (Wan et al.), Fig. 2, SGD: the same run without momentum, whose relaxation takes ten times as
# long.
_base_ = ["./resnet50_constant-lr_8xb32-450k.py"]

optim_wrapper = dict(optimizer=dict(momentum=0.0))
