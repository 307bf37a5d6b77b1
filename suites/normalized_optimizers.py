"""Ours: the optimizers of Kosson et al. beside SGDM and AdamW, on classification and detection."""

paper = "Kosson, Messmer, Jaggi: Rotational Equilibrium (arXiv 2305.17212) and Analyzing & Reducing"
paper += " the Need for Learning Rate Warmup in GPT Training (arXiv 2410.23922); the comparison is"
paper += " ours"

_variants = ("adamw", "rotational-sgd", "rotational-adamw", "liona", "lionar")
_detectors = {
    "optimizers-mask-rcnn": ("Mask R-CNN", "mask-rcnn_r50_fpn_syncbn-scratch", "4x"),
    "optimizers-faster-rcnn": ("Faster R-CNN", "faster-rcnn_r50_fpn", "1x"),
    "optimizers-retinanet": ("RetinaNet", "retinanet_r50_fpn", "1x"),
}


def _tune(metric):
    """Three learning rates for each optimizer, one run each, on a seed that no result has."""
    return dict(
        option="lr",
        key="optim_wrapper.optimizer.lr",
        factors=[1 / 3, 1, 3],
        seed=100,
        metric=metric,
    )


experiments = [
    dict(
        id="optimizers-imagenet",
        figure="ResNet-50 on ImageNet, six optimizers",
        runs={
            "sgdm": "configs/imagenet/resnet50_goyal_8xb32-90e.py",
            **{name: f"configs/imagenet/resnet50_{name}_8xb32-90e.py" for name in _variants},
        },
        seeds=[0, 1, 2],
        tune=_tune("accuracy/top1"),
        claims=["optimizers-imagenet-turned"],
        # the first stage ends in equilibrium for the slowest of them, too
        replica=dict(longest=5),
    ),
    *(
        dict(
            id=name,
            figure=f"{title} on COCO, six optimizers",
            runs={
                "sgdm": f"configs/coco/{stem}_{schedule}_coco.py",
                **{role: f"configs/coco/{stem}-{role}_{schedule}_coco.py" for role in _variants},
            },
            seeds=[0, 1, 2],
            tune=_tune("coco/bbox_mAP"),
            claims=[f"{name}-turned"],
            replica=dict(
                longest=5,
                validations=2,
                embedded_options={
                    "": {"train_dataloader.batch_size": 2, "train_cfg.dynamic_intervals": None},
                },
            ),
        )
        for name, (title, stem, schedule) in _detectors.items()
    ),
]
