# How much a warmup helps (ours, in no paper): LionAR.
_base_ = ["./resnet50_lionar_8xb32-90e.py", "../_base_/warmups.py"]

param_scheduler = _base_.imagenet_90e
