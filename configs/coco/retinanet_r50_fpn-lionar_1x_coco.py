"""mmdet's RetinaNet with LionAR (Kosson et al. 2024) at AdamW's settings.

The pairing is ours. All matrices turn from the first step on by the angle that is SGD's
equilibrium; mmdet's warmup and the drops scale it.
"""

_base_ = ["./retinanet_r50_fpn-adamw_1x_coco.py"]

optim_wrapper = dict(optimizer=dict(type="LionAR"))
