# How much a warmup helps (ours, in no paper): LionAR with long momentum,
# Nesterov and inverse bias correction.
_base_ = ["./resnet50_lionar-no-warmup_8xb32-90e.py", "../_base_/warmups.py"]

param_scheduler = _base_.imagenet_90e
