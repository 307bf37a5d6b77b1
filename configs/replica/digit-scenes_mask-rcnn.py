# What Mask R-CNN's embedded replicas train and on what: the demo's miniature with batch norm in
# backbone, FPN and heads, from scratch, on scenes of real digits.
_base_ = ["../demo/mask-rcnn_digits.py"]
