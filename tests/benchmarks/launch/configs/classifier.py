# Trained by the tests of several processes; data_root comes from the command line. Crops and
# labels are drawn anew each time.
_base_ = ["../../../../configs/_base_/classification_runtime.py"]

custom_imports = dict(
    imports=[
        "smd_hooks",
        "benchmarks.pipelines.classification",
        "tests.benchmarks.launch.group_norm_net",
    ]
)
model = dict(
    type="GroupNormClassifier",
    arch="",
    num_classes=3,
    data_preprocessor=dict(type="ImagePreprocessor", mean=[128.0], std=[64.0]),
)
grey = dict(type="Grayscale")
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="ImageFolderDataset",
        split="train",
        transforms=[grey, dict(type="RandomCrop", size=12, padding=2)],
        label_noise=0.2,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="ImageFolderDataset", split="val", transforms=[grey]),
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.01),
    clip_grad=dict(max_norm=0.5),
)
param_scheduler = dict(type="MultiStepLR", by_epoch=False, milestones=[16], gamma=0.1)
train_cfg = dict(by_epoch=False, max_iters=24, val_interval=12)
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(interval=1, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=12, max_keep_ckpts=-1),
)
custom_hooks = [dict(type="SMDHook", interval=1)]
