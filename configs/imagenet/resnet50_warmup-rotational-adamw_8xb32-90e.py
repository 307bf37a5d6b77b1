# How much a warmup helps (ours, in no paper): RotationalAdamW, whose
# angles follow lr itself, as LionAR's do.
_base_ = ["./resnet50_rotational-adamw_8xb32-90e.py", "../_base_/warmups.py"]

optim_wrapper = dict(optimizer=dict(schedule="linear"))
param_scheduler = _base_.imagenet_90e
