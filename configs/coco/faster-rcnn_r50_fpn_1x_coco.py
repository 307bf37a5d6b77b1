"""Faster R-CNN R50-FPN as mmdet ships it, measured.

Its backbone is pretrained, partly frozen and in eval-mode batch norm, and neck and heads have no
norm: nothing in it is scale-invariant, which the records then say layer by layer. Of the
checkpoints, one an epoch, the last three are kept.
"""

_base_ = ["mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "../_base_/detection.py"]

default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
