# Rotational Equilibrium (Kosson et al. 2023; figure number not read), DeiT-tiny under AdamW: batch
# 1,024, 300 epochs with 5 of warmup, lr 1e-3, weight decay .05, mixup .8, cutmix 1. The rest as
# Touvron et al. (2021) train it, but for: no repeated augmentation, no averaged weights, a cosine
# to 0 (ours); RandAugment applies each of its two operations at magnitude 9 of 10 without spread;
# what RandomErasing takes out becomes the mean colour. Norms, biases, class token and position
# embeddings do not decay. In the transforms, interpolation 3 is bicubic. No weight of this network
# is scale-invariant by itself: its angles are measured beside the equilibrium that one that is
# would have. Each rank has a seed of its own: shares of mixing and dropped paths are drawn in the
# training process, and with one seed all ranks would draw the same.
_base_ = ["../_base_/imagenet.py", "../_base_/cosine.py"]

model = dict(
    type="TimmClassifier",
    arch="deit_tiny_patch16_224",
    num_classes=1000,
    arch_options=dict(drop_path_rate=0.1),
    label_smoothing=0.1,
    mixing=dict(mixup=0.8, cutmix=1.0),
)
train_dataloader = dict(
    batch_size=128,
    dataset=dict(
        transforms=[
            dict(type="RandomResizedCrop", size=224, interpolation=3),
            dict(type="RandomHorizontalFlip"),
            dict(
                type="RandAugment",
                num_ops=2,
                magnitude=9,
                num_magnitude_bins=11,
                interpolation=3,
                fill=[124, 116, 104],
            ),
            dict(type="PILToTensor"),
            dict(type="RandomErasing", p=0.25, value=[124, 116, 104]),
        ]
    ),
)
val_dataloader = dict(
    dataset=dict(
        transforms=[
            dict(type="Resize", size=256, interpolation=3),
            dict(type="CenterCrop", size=224),
        ]
    )
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={"cls_token": dict(decay_mult=0.0), "pos_embed": dict(decay_mult=0.0)},
    ),
)
param_scheduler = [
    dict(_base_.linear_warmup, end=5),
    dict(_base_.cosine_to_zero, begin=5, end=300, T_max=295),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
auto_scale_lr = dict(base_batch_size=1024)
randomness = dict(diff_rank_seed=True)
