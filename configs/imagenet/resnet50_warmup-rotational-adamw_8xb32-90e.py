# How much a warmup helps (ours, in no paper): RotationalAdamW.
_base_ = ["./resnet50_rotational-adamw_8xb32-90e.py", "../_base_/warmups.py"]

param_scheduler = _base_.imagenet_90e
