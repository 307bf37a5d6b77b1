"""mmdet's RetinaNet with rotational AdamW (Kosson et al. 2023) at AdamW's settings.

The pairing is ours. The angle follows the root of lr at each drop, at once, as equilibrium does.
Predictors, whose norms have to grow, do not turn.

Pretrained filters before frozen norms may not lose their means: zero_mean is off.
"""

_base_ = ["./retinanet_r50_fpn-adamw_1x_coco.py", "../_base_/predictors.py"]

optim_wrapper = dict(
    optimizer=dict(type="RotationalAdamW", zero_mean=False),
    paramwise_cfg=dict(custom_keys=_base_.predictors.retinanet),
)
