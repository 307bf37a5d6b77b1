"""SMD (Wan et al.), Fig. 3, COCO, "rescaled": weights put on their new equilibrium at each drop."""

_base_ = ["./mask-rcnn_r50_fpn_syncbn-scratch_4x_coco.py"]

custom_hooks = [*_base_.custom_hooks, dict(type="EquilibriumRescaleHook")]
