"""Rotational Equilibrium (Kosson et al. 2023), and SMD's Figure 3 asked of AdamW."""

paper = "Kosson, Messmer, Jaggi: Rotational Equilibrium, arXiv 2305.17212"

_resnet20 = {
    f"{optimizer}-{batch}": f"configs/cifar10/resnet20_{optimizer}_{batch}-200e.py"
    for batch in ("b128", "b2048")
    for optimizer in (
        *("adamw", "rotational-adamw", "sgdm", "rotational-sgd", "lion", "rotational-lion"),
    )
}

experiments = [
    dict(
        id="re-imagenet-resnet50",
        figure="ResNet-50 on ImageNet, SGDM and rotational SGDM",
        runs={
            "sgdm": "configs/imagenet/resnet50_cosine_8xb32-90e.py",
            "rotational-sgd": "configs/imagenet/resnet50_cosine-rotational-sgd_8xb32-90e.py",
        },
        seeds=[0],
        claims=[
            "re-imagenet-resnet50-angle",
            "re-imagenet-resnet50-turned",
            "re-imagenet-resnet50-zero-shot",
        ],
    ),
    dict(
        id="re-imagenet-large-batch",
        figure="ResNet-50 at batch 8192 without warmup, ten learning rates",
        runs={
            "sgdm": "configs/imagenet/resnet50_large-batch_8xb1024-10e.py",
            "rotational-sgd": (
                "configs/imagenet/resnet50_large-batch-rotational-sgd_8xb1024-10e.py"
            ),
        },
        seeds=[0],
        grid=dict(
            lr=dict(key="optim_wrapper.optimizer.lr", values=[0.1 * 2**k for k in range(10)])
        ),
        claims=[
            "re-imagenet-large-batch-warmup",
        ],
        replica="its learning rates' relaxation times lie 512-fold apart, on one time scale",
    ),
    dict(
        id="re-deit-tiny",
        figure="DeiT-tiny on ImageNet, AdamW and rotational AdamW",
        runs={
            "adamw": "configs/imagenet/deit-tiny_8xb128-300e.py",
            "rotational-adamw": "configs/imagenet/deit-tiny-rotational-adamw_8xb128-300e.py",
        },
        seeds=[0],
        claims=[
            "re-deit-tiny-angle",
            "re-deit-tiny-turned",
            "re-deit-tiny-zero-shot",
        ],
        replica="the replicas' networks are convolutional",
    ),
    dict(
        id="re-cifar10-resnet20",
        figure="ResNet-20 on CIFAR-10, three optimizers and their rotational variants",
        runs=_resnet20,
        seeds=[0, 1, 2],
        claims=[
            "re-cifar10-resnet20-b128-angle",
            "re-cifar10-resnet20-b128-turned",
            "re-cifar10-resnet20-b128-zero-shot",
            "re-cifar10-resnet20-b2048-angle",
            "re-cifar10-resnet20-b2048-turned",
            "re-cifar10-resnet20-b2048-zero-shot",
        ],
    ),
    dict(
        id="re-adam-l2",
        figure="AdamW beside Adam with L2 regularization, ResNet-18 on CIFAR-10",
        runs={
            "adamw": "configs/cifar10/resnet18_adamw_b128-200e.py",
            "adam-l2": "configs/cifar10/resnet18_adam-l2_b128-200e.py",
        },
        seeds=[0, 1, 2],
        claims=[
            "re-adam-l2-balance",
        ],
    ),
    dict(
        id="re-adamw-stages",
        figure="ours: what SMD's Fig. 3 shows of SGDM, asked of AdamW",
        runs=dict(
            adamw="configs/imagenet/resnet50_adamw_8xb32-90e.py",
            rescaled="configs/imagenet/resnet50_adamw-rescaled_8xb32-90e.py",
        ),
        seeds=[0, 1, 2],
        claims=[
            "re-adamw-stages-half-way",
            "re-adamw-stages-stage-ends",
            "re-adamw-stages-late-stages",
            "re-adamw-stages-rescaled",
            "re-adamw-stages-drift",
            "re-adamw-stages-law",
            "re-adamw-stages-drops",
            "re-adamw-stages-control-classifier",
        ],
        # Rescaled weights end √1000 times smaller. Their norms' eps then is a hundredth of the
        # variance if they were as large as lr .1 makes them before, and far more at a smaller lr of
        # the same relaxation time; in proportion the weights move alike at any. So they are
        # initialised at that size, lr · √τ = .7. What is not scale-invariant does not move alike:
        # the classifier's lr is .01, that of the norms' gains and biases .001. Preconditioned
        # gradients are orthogonal to the weight, as gradients are, only as far as the second
        # moments of a filter are alike: what is left pushes the weight onto coordinates with small
        # gradients, and its norm up. Rows of many weights help.
        replica=dict(
            embedded_options={
                "": {
                    "model.arch_options.widths": (32, 64, 64),
                    "model.init_cfg": dict(type="Normal", layer="Conv2d", std=0.7),
                    "optim_wrapper.optimizer.lr": 0.1,
                    "optim_wrapper.optimizer.weight_decay": 0.1,
                    "optim_wrapper.paramwise_cfg.custom_keys": {
                        ".bn.": dict(lr_mult=0.01, decay_mult=0.0),
                        "fc.weight": dict(lr_mult=0.1),
                        "fc.bias": dict(lr_mult=0.1, decay_mult=0.0),
                    },
                }
            }
        ),
    ),
]
