"""Ours: the optimizers of Kosson et al. beside SGDM and AdamW, on classification and detection."""

paper = "Kosson, Messmer, Jaggi: Rotational Equilibrium (arXiv 2305.17212) and Analyzing & Reducing"
paper += " the Need for Learning Rate Warmup in GPT Training (arXiv 2410.23922); the comparison is"
paper += " ours"

_variants = ("adamw", "rotational-sgd", "rotational-adamw", "liona", "lionar")
_turning = ("rotational-sgd", "rotational-adamw", "lionar")


def _own_decay(factor, predictors, others=()):
    """Leave the decay of weights that are not scale-invariant what it is at full size.

    A replica multiplies weight decay by ``factor`` so that scale-invariant weights relax in fewer
    steps: of their loss it changes nothing. On others it is a regularizer, and so many times as
    much of it holds them down. What turns by a set angle is not held down: of that the angle
    is scaled, through the decay.
    """
    key = "optim_wrapper.paramwise_cfg.custom_keys"
    own = {name: dict(decay_mult=1 / factor) for name in (*predictors, *others)}
    still = {name: own[name] for name in predictors}
    options = {role: {key: own} for role in ("sgdm", "adamw", "liona")}
    return options | ({role: {key: still} for role in _turning} if predictors else {})


# Scaled by their τ they have a few hundred steps (`--dry-run` said 360 and 185).
_too_short = "in its relaxation times it has a few hundred steps, too few to learn from scratch,"
_too_short += " and the original fine-tunes a backbone that is partly frozen"
_detectors = {
    "optimizers-mask-rcnn": (
        *("Mask R-CNN", "mask-rcnn_r50_fpn_syncbn-scratch", "4x"),
        dict(
            longest=5,
            validations=2,
            options=_own_decay(
                250,
                predictors=(
                    *("rpn_cls.weight", "rpn_reg.weight"),
                    *("fc_cls.weight", "fc_reg.weight", "conv_logits.weight"),
                ),
                others=("rpn_conv.weight", "shared_fcs.0.weight", "upsample.weight"),
            ),
            embedded_options={
                "": {"train_dataloader.batch_size": 2, "train_cfg.dynamic_intervals": None},
            },
        ),
    ),
    "optimizers-faster-rcnn": ("Faster R-CNN", "faster-rcnn_r50_fpn", "1x", _too_short),
    "optimizers-retinanet": ("RetinaNet", "retinanet_r50_fpn", "1x", _too_short),
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
        replica=dict(longest=5, options=_own_decay(50, predictors=(), others=("fc.weight",))),
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
            replica=replica,
        )
        for name, (title, stem, schedule, replica) in _detectors.items()
    ),
]
