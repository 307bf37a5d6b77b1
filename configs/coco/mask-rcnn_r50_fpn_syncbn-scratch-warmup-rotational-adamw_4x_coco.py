"""How much a warmup helps (ours, in no paper): RotationalAdamW.

Its angles follow lr itself, as LionAR's do.
"""

_base_ = ["./mask-rcnn_r50_fpn_syncbn-scratch-rotational-adamw_4x_coco.py", "../_base_/warmups.py"]

optim_wrapper = dict(optimizer=dict(schedule="linear"))
param_scheduler = _base_.coco_4x
