"""Spherical Motion Dynamics (Wan et al.): Figures 2, 3 and 4."""

paper = "Wan, Zhu, Zhang, Sun: Spherical Motion Dynamics, arXiv 2006.08419"

# In a replica the learning rates' stages keep their lengths in relaxation times. Controls of
# Figure 3: without label noise the digits are soon learned and the gradients that drive the norms
# fade, so that the closed form must fail while the law fed with measured moments holds; with decay
# on the norms' gains and biases as well scale invariance ends, and that law must break.
_noise_free = {
    "train_dataloader.dataset.label_noise": 0.0,
    "optim_wrapper.optimizer.weight_decay": 0.01,
}

experiments = [
    dict(
        id="smd-fig2",
        figure="Fig. 2",
        runs=dict(
            sgd="configs/imagenet/resnet50_constant-lr-sgd_8xb32-450k.py",
            sgdm="configs/imagenet/resnet50_constant-lr_8xb32-450k.py",
        ),
        seeds=[0],
        claims=[
            "smd-fig2-gradient",
            "smd-fig2-norm",
            "smd-fig2-angle",
            "smd-fig2-faster",
            "smd-fig2-sooner",
            "smd-fig2-control-classifier",
            "smd-fig2-control-formula",
            "smd-fig2-control-gradient-alone",
        ],
        # the norms must start at twice their equilibrium at least, to be seen on their way
        replica=dict(
            longest=16,
            embedded_options={
                "": {"model.init_cfg": dict(type="Normal", layer="Conv2d", std=0.33)},
            },
        ),
    ),
    dict(
        id="smd-fig3-imagenet",
        figure="Fig. 3, ImageNet",
        runs=dict(
            plain="configs/imagenet/resnet50_goyal_8xb32-90e.py",
            rescaled="configs/imagenet/resnet50_goyal-rescaled_8xb32-90e.py",
        ),
        seeds=[0, 1, 2],
        claims=[
            "smd-fig3-imagenet-half-way",
            "smd-fig3-imagenet-in-15-epochs",
            "smd-fig3-imagenet-stage-ends",
            "smd-fig3-imagenet-late-stages",
            "smd-fig3-imagenet-rescaled",
            "smd-fig3-imagenet-drift",
            "smd-fig3-imagenet-law",
            "smd-fig3-imagenet-drops",
            "smd-fig3-imagenet-control-classifier",
            "smd-fig3-imagenet-control-noise-free",
            "smd-fig3-imagenet-noise-free-law",
            "smd-fig3-imagenet-control-gradient-alone",
            "smd-fig3-imagenet-control-norm-decay",
        ],
        replica=dict(
            controls={
                "noise-free": dict(of="plain", options=_noise_free),
                "norm-decay": dict(
                    of="plain",
                    options={**_noise_free, "optim_wrapper.paramwise_cfg.norm_decay_mult": 1.0},
                ),
            }
        ),
    ),
    dict(
        id="smd-fig3-coco",
        figure="Fig. 3, COCO",
        runs=dict(
            plain="configs/coco/mask-rcnn_r50_fpn_syncbn-scratch_4x_coco.py",
            rescaled="configs/coco/mask-rcnn_r50_fpn_syncbn-scratch-rescaled_4x_coco.py",
        ),
        seeds=[0],
        claims=[
            "smd-fig3-coco-stage-ends",
            "smd-fig3-coco-late-stages",
            "smd-fig3-coco-rescaled",
            "smd-fig3-coco-drift",
            "smd-fig3-coco-law",
            "smd-fig3-coco-drops",
            "smd-fig3-coco-control-classifier",
        ],
        # a detector's deep layers begin far above their equilibrium norm
        replica=dict(longest=13, validations=2),
    ),
    dict(
        id="smd-fig4",
        figure="Fig. 4",
        runs=dict(
            sgdm="configs/cifar10/resnet18_sgdm_b128-200e.py",
            rescaled="configs/cifar10/resnet18_sgdm-rescaled_b128-200e.py",
            adam="configs/cifar10/resnet18_adam_b128-200e.py",
        ),
        seeds=[0, 1, 2, 3, 4],
        claims=[
            "smd-fig4-dip",
            "smd-fig4-no-dip",
            "smd-fig4-angle",
        ],
        # a first stage that is long enough to learn in; accuracies often enough to show a dip;
        # smaller batches and fewer samples of angles, for fifteen runs take long
        replica=dict(
            longest=12,
            validations=90,
            embedded_options={
                "": {"train_dataloader.batch_size": 16, "custom_hooks.0.interval": 5},
            },
        ),
    ),
]
