"""Mask R-CNN R50-FPN from scratch with SyncBN everywhere, 360k iterations of 8×2 images.

The COCO run of SMD (Wan et al.), Fig. 3, whose recipe is that of He et al. 2019, "Rethinking
ImageNet Pre-training": nothing pretrained, nothing frozen, norms in backbone, FPN, a 4conv1fc box
head and the mask head. mmdet's warmup over the first 500 iterations stays.

A run that goes on by ``python -m benchmarks run --resume`` asks the data set for the size of each
image that it has seen, for mmdet's batches are made by aspect ratio, and loads none of them.
"""

_base_ = ["mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "../_base_/detection.py"]

norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    backbone=dict(
        frozen_stages=-1,
        norm_eval=False,
        norm_cfg=norm_cfg,
        zero_init_residual=False,
        init_cfg=None,
    ),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))

train_dataloader = dict(sampler=dict(type="InfiniteSampler"))
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=360_000, val_interval=30_000)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", by_epoch=False, milestones=[300_000, 340_000], gamma=0.1),
]

default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=30_000, max_keep_ckpts=3),
)
log_processor = dict(by_epoch=False)
