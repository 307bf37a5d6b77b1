"""mmdet's RetinaNet with LionAR (Kosson et al. 2024) at AdamW's settings.

The pairing is ours. All matrices but the predictors turn from the first step on by the angle that
is SGD's equilibrium; mmdet's warmup and the drops scale it. Predictors, whose norms have to grow,
take LionA's step, without decay.
"""

_base_ = ["./retinanet_r50_fpn-adamw_1x_coco.py", "../_base_/predictors.py"]

optim_wrapper = dict(
    optimizer=dict(type="LionAR"),
    paramwise_cfg=dict(custom_keys=_base_.predictors.retinanet),
)
