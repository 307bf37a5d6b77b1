"""Mask R-CNN from scratch with LionA (Kosson et al. 2024) at AdamW's settings.

The pairing is ours. Its updates have the norm of AdamW's. Signs are less alike from step to step:
its equilibrium angle is a fifth larger.
"""

_base_ = ["./mask-rcnn_r50_fpn_syncbn-scratch-adamw_4x_coco.py"]

optim_wrapper = dict(optimizer=dict(type="LionA"))
