# CIFAR-10 as torchvision has it, in data/cifar10/cifar-10-batches-py, with the usual augmentation
# of He et al. (2016): 4 pixels of padding, crops and flips. One GPU, 128 images. To get the data:
#   python -c "from torchvision.datasets import CIFAR10; CIFAR10('data/cifar10', download=True)"
# data_root stands in both loaders, for --cfg-options to reach each.
_base_ = ["./classification_runtime.py"]

train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="Cifar10Dataset",
        data_root="data/cifar10",
        split="train",
        transforms=[
            dict(type="RandomCrop", size=32, padding=4),
            dict(type="RandomHorizontalFlip"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=500,
    num_workers=2,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="Cifar10Dataset", data_root="data/cifar10", split="val", transforms=[]),
)
auto_scale_lr = dict(base_batch_size=128)
default_hooks = dict(checkpoint=dict(interval=20))
# An epoch has 391 steps, or 25 in the large batch.
custom_hooks = [dict(type="SMDHook", interval=10)]
