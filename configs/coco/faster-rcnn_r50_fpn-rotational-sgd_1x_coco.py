"""mmdet's Faster R-CNN with rotational SGDM (Kosson et al. 2023) at SGD's settings.

The pairing is ours. The angle follows the root of lr at each drop, at once, as equilibrium does.
Predictors, whose norms have to grow, do not turn.

Pretrained filters before frozen norms may not lose their means: zero_mean is off.
"""

_base_ = ["./faster-rcnn_r50_fpn_1x_coco.py", "../_base_/predictors.py"]

optim_wrapper = dict(
    optimizer=dict(type="RotationalSGD", zero_mean=False),
    paramwise_cfg=dict(custom_keys=_base_.predictors.faster_rcnn),
)
