# ImageNet in its folder layout, {train,val}/<wnid>/*, and the usual crops, on 8 GPUs × 32 images.
# Labels are those of the standard 1,000 classes. data_root and classes stand in both loaders, for
# --cfg-options to reach each, as in
#   train_dataloader.dataset.data_root=… val_dataloader.dataset.data_root=…
# Folders that are none of ImageNet's are numbered as they are with classes=None.
# --auto-scale-lr takes the learning rate to another batch.
_base_ = ["./classification_runtime.py"]

train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    # Workers that start anew each epoch would draw the same random crops in each.
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="ImageFolderDataset",
        data_root="data/imagenet",
        split="train",
        classes="imagenet-1k",
        transforms=[
            dict(type="RandomResizedCrop", size=224),
            dict(type="RandomHorizontalFlip"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="ImageFolderDataset",
        data_root="data/imagenet",
        split="val",
        classes="imagenet-1k",
        transforms=[
            dict(type="Resize", size=256),
            dict(type="CenterCrop", size=224),
        ],
    ),
)
model = dict(
    # ImageNet's own channel means and deviations
    data_preprocessor=dict(
        type="ImagePreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]
    )
)
auto_scale_lr = dict(base_batch_size=256)
