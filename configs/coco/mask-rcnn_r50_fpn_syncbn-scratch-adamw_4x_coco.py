"""Mask R-CNN from scratch with AdamW, lr and weight decay such that its equilibrium angle is SGD's.

The pairing is ours, in no paper; 0.1 is a usual weight decay for AdamW.
"""

_base_ = ["./mask-rcnn_r50_fpn_syncbn-scratch_4x_coco.py"]

optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=2e-4, weight_decay=0.1))
