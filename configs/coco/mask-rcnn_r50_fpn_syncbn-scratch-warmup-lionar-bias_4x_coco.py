"""How much a warmup helps (ours, in no paper): LionAR with long momentum,
Nesterov and inverse bias correction.
"""

_base_ = ["./mask-rcnn_r50_fpn_syncbn-scratch-lionar_4x_coco.py", "../_base_/warmups.py"]

optim_wrapper = dict(optimizer=dict(beta=0.98, nesterov=True, inverse_bias_correction=True))
param_scheduler = _base_.coco_4x
