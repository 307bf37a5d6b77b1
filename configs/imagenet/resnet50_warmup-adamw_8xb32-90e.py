# How much a warmup helps (ours, in no paper): AdamW.
_base_ = ["./resnet50_adamw_8xb32-90e.py", "../_base_/warmups.py"]

param_scheduler = _base_.imagenet_90e
