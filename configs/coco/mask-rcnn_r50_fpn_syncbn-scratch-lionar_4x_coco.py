"""The scratch run with LionAR in SGD's place: all matrices turn by SGD's equilibrium angle.

They do so from the first step on, where SGD comes there over some relaxation times. lr and
weight decay are AdamW's usual ones with that angle; mmdet's warmup and the two drops scale it.
Not run at full size.
"""

_base_ = ["./mask-rcnn_r50_fpn_syncbn-scratch_4x_coco.py"]

optim_wrapper = dict(optimizer=dict(_delete_=True, type="LionAR", lr=2e-4, weight_decay=0.1))
