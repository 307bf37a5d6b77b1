# Trained by the tests of several processes; data_root comes from the command line. FCOS's losses
# are normalized over the objects of all processes, so that halves of a batch make the whole one's
# gradient; RetinaNet's and Mask R-CNN's are normalized in each process by itself.
_base_ = ["../../../../configs/demo/mask-rcnn_digits.py"]

norm_cfg = dict(type="GN", num_groups=4)
model = dict(
    _delete_=True,
    type="FCOS",
    data_preprocessor=dict(type="DetDataPreprocessor", mean=[45.0] * 3, std=[60.0] * 3),
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
    ),
    neck=dict(type="FPN", in_channels=[16, 32, 64], out_channels=16, num_outs=3, norm_cfg=norm_cfg),
    bbox_head=dict(
        type="FCOSHead",
        num_classes=1,
        in_channels=16,
        feat_channels=16,
        stacked_convs=1,
        strides=[4, 8, 16],
        regress_ranges=((-1, 24), (24, 40), (40, 1e8)),
        norm_cfg=norm_cfg,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25),
        loss_bbox=dict(type="IoULoss"),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True),
    ),
    test_cfg=dict(
        nms_pre=200,
        min_bbox_size=0,
        score_thr=0.02,
        nms=dict(type="nms", iou_threshold=0.5),
        max_per_img=20,
    ),
)
classes = dict(classes=("digit",))
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        metainfo=classes,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="PackDetInputs"),
        ],
    ),
)
# scenes that it trains on, so that it finds something
val_dataloader = dict(batch_size=4, dataset=dict(metainfo=classes, data_prefix=dict(img="train/")))
val_evaluator = dict(metric="bbox")
optim_wrapper = dict(
    optimizer=dict(lr=0.003, weight_decay=0.001),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = []
train_cfg = dict(max_iters=8, val_interval=8)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=8))
custom_hooks = [dict(type="SMDHook", interval=1)]
