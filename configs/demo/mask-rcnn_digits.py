# Mask R-CNN in miniature: batch norm in backbone, FPN and heads, from scratch, SGDM.
# Stage lengths are measured in relaxation times, τ = (1 − momentum) / (4 · lr · weight_decay):
#   stage 1: lr .02,  τ =  50 steps, 650 steps = 13 τ
#   stage 2: lr .005, τ = 200 steps, 450 steps = 2.25 τ
# Stage 1 is that long because layers start above their equilibrium norm, some far; the drop is by
# 4, not 10, so that the climb back shows in a short run. Scale-invariant layers know only the
# product lr · weight_decay; the predictors, which are not, want this lr rather than .1.
_base_ = ["../_base_/detection.py"]

default_scope = "mmdet"
norm_cfg = dict(type="BN")
strides = [4, 8, 16]

roi_strides = strides[:2]
assigner = dict(type="MaxIoUAssigner", ignore_iof_thr=-1)
nms_proposals = dict(nms_pre=200, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0)
model = dict(
    type="MaskRCNN",
    data_preprocessor=dict(
        type="DetDataPreprocessor", mean=[45.0] * 3, std=[60.0] * 3, pad_mask=True
    ),
    backbone=dict(
        type="ResNet",
        depth=18,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
        stem_channels=16,
        base_channels=16,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=[
            dict(type="Normal", layer="Conv2d", std=0.01),
            dict(type="Constant", layer="BatchNorm2d", val=1),
        ],
    ),
    neck=dict(
        type="FPN",
        in_channels=[16, 32, 64],
        out_channels=32,
        num_outs=3,
        norm_cfg=norm_cfg,
        init_cfg=dict(type="Normal", layer="Conv2d", std=0.01),
    ),
    rpn_head=dict(
        type="RPNHead",
        in_channels=32,
        feat_channels=32,
        anchor_generator=dict(
            type="AnchorGenerator", scales=[4], ratios=[1.0, 2.0], strides=strides
        ),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder"),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True),
        loss_bbox=dict(type="L1Loss"),
    ),
    roi_head=dict(
        type="StandardRoIHead",
        bbox_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=2),
            out_channels=32,
            featmap_strides=roi_strides,
            finest_scale=18,
        ),
        bbox_head=dict(
            type="Shared4Conv1FCBBoxHead",
            in_channels=32,
            conv_out_channels=32,
            fc_out_channels=128,
            num_classes=10,
            reg_class_agnostic=True,
            bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_stds=[0.1, 0.1, 0.2, 0.2]),
            norm_cfg=norm_cfg,
            loss_cls=dict(type="CrossEntropyLoss"),
            loss_bbox=dict(type="L1Loss"),
        ),
        mask_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=2),
            out_channels=32,
            featmap_strides=roi_strides,
            finest_scale=18,
        ),
        mask_head=dict(
            type="FCNMaskHead",
            num_convs=2,
            in_channels=32,
            conv_out_channels=32,
            num_classes=10,
            class_agnostic=True,
            norm_cfg=norm_cfg,
            loss_mask=dict(type="CrossEntropyLoss", use_mask=True),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, **assigner),
            sampler=dict(type="RandomSampler", num=64, pos_fraction=0.5, add_gt_as_proposals=False),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=dict(max_per_img=64, **nms_proposals),
        rcnn=dict(
            assigner=dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, **assigner),
            sampler=dict(type="RandomSampler", num=32, pos_fraction=0.5, add_gt_as_proposals=True),
            mask_size=28,
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=dict(max_per_img=50, **nms_proposals),
        rcnn=dict(
            score_thr=0.05,
            nms=dict(type="nms", iou_threshold=0.5),
            max_per_img=20,
            mask_thr_binary=0.5,
        ),
    ),
)

data_root = "data/demo/digit_scenes/"
dataset = dict(type="CocoDataset", data_root=data_root, metainfo=dict(classes=tuple("0123456789")))
train_dataloader = dict(
    batch_size=4,
    # Reading a scene takes a millisecond: worker processes would only compete for the cores.
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="train/"),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
            dict(type="PackDetInputs"),
        ],
        **dataset,
    ),
)
val_dataloader = dict(
    batch_size=10,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="val/"),
        test_mode=True,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(96, 96)),
            dict(
                type="PackDetInputs",
                meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
            ),
        ],
        **dataset,
    ),
)
val_evaluator = dict(
    type="CocoMetric",
    ann_file=data_root + "annotations/instances_val.json",
    metric=["bbox", "segm"],
)
val_cfg = dict(type="ValLoop")

optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=0.025),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = dict(type="MultiStepLR", by_epoch=False, milestones=[650], gamma=0.25)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=1100, val_interval=650)
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=550, max_keep_ckpts=1),
)
log_processor = dict(by_epoch=False)
custom_hooks = [dict(type="SMDHook", interval=2)]
