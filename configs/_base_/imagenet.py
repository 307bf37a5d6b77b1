# ImageNet in its folder layout, {train,val}/<class>/*, and the usual crops.
# data_root stands in both loaders, for --cfg-options to reach each:
#   train_dataloader.dataset.data_root=… val_dataloader.dataset.data_root=…
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
        transforms=[
            dict(type="Resize", size=256),
            dict(type="CenterCrop", size=224),
        ],
    ),
)
