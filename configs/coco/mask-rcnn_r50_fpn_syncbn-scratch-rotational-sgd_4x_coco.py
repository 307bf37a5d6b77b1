"""Mask R-CNN from scratch with rotational SGDM (Kosson et al. 2023) at SGD's settings.

The pairing is ours. The angle follows the root of lr at each drop, at once, as equilibrium does.
Predictors, whose norms have to grow, do not turn.
"""

_base_ = ["./mask-rcnn_r50_fpn_syncbn-scratch_4x_coco.py", "../_base_/predictors.py"]

optim_wrapper = dict(
    optimizer=dict(type="RotationalSGD"),
    paramwise_cfg=dict(custom_keys=_base_.predictors.mask_rcnn),
)
