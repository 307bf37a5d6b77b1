"""The warmup study of Kosson et al. (2024), GPT-2 on OpenWebText; and the same question asked of
ImageNet's and COCO's recipes."""

paper = "Kosson, Messmer, Jaggi: Analyzing & Reducing the Need for Learning Rate Warmup in GPT"
paper += " Training, arXiv 2410.23922; ImageNet and COCO are ours"

_optimizers = ("adamw", "lion", "liona", "lionar", "lionar-rrc", "lionar-bias", "liona-bias")
_optimizers += ("lionar-no-momentum", "rotational-adamw")
_others = ("sgdm", "adamw", "lionar", "lionar-bias", "rotational-adamw")
_warmup = dict(key="param_scheduler.0.share", values=[0.0, 0.02, 0.05, 0.1, 0.2, 0.5])


def _rates(*factors):
    return dict(key="optim_wrapper.optimizer.lr", factors=list(factors))


def _of_its_size(lr, weight_decay, factor=10, width=64 / 768):
    """Of a replica, keep also how weights begin in proportion to their equilibrium.

    None of GPT's weights is scale-invariant, and the first steps are what a warmup is for. A
    network so much narrower has weights so many times as large, √(1/width), for the same sizes
    of what they meet; at lr · weight decay × factor, equilibrium norms, √(lr / weight decay), are
    as many times as large if lr and decay are these. Gains and biases, which are as large at any
    width, take the steps that they would.
    """
    larger, faster = (1 / width) ** 0.5, factor**0.5
    ordinary = float(f"{1 / larger:.3g}")
    return {
        "optim_wrapper.optimizer.lr": float(f"{lr * larger * faster:.3g}"),
        "optim_wrapper.optimizer.weight_decay": float(f"{weight_decay / larger * faster:.3g}"),
        "optim_wrapper.paramwise_cfg.bias_lr_mult": ordinary,
        "optim_wrapper.paramwise_cfg.custom_keys": {"norm": dict(lr_mult=ordinary, decay_mult=0.0)},
    }


def _claims(name):
    about = ("sgdm", "adamw", "lionar-bias", "rotational-adamw", "lionar", "control-exchanged")
    return [f"{name}-{what}" for what in about]


experiments = [
    dict(
        id="warmup-gpt",
        figure="GPT-2 124M, nine optimizers, with warmups and without",
        runs={name: f"configs/gpt/gpt2-124m_{name}_8xb60-5k.py" for name in _optimizers},
        seeds=[0, 1, 2],
        grid=dict(warmup=_warmup, lr=_rates(0.5, 1, 2, 4, 8, 16, 32)),
        claims=[
            "warmup-adamw",
            "warmup-adamw-updates",
            "warmup-liona",
            "warmup-lionar",
            "warmup-lionar-rrc",
            "warmup-lionar-bias",
            "warmup-no-momentum",
            "warmup-rotational-adamw",
            "warmup-control-exchanged",
            "warmup-control-updates",
        ],
        replica=dict(
            fastest=10,
            validations=1,
            grid=dict(warmup=[0.0, 0.05, 0.2], lr=[1, 4, 16]),
            options={"": _of_its_size(6e-4, 0.1), "lion": _of_its_size(6e-5, 1.0)},
        ),
    ),
    dict(
        id="warmup-imagenet",
        figure="ours: ResNet-50 on ImageNet, five optimizers, with warmups and without",
        runs={n: f"configs/imagenet/resnet50_warmup-{n}_8xb32-90e.py" for n in _others},
        seeds=[0, 1, 2],
        grid=dict(warmup=_warmup, lr=_rates(0.25, 1, 4, 16)),
        claims=_claims("warmup-imagenet"),
        replica=dict(longest=3, validations=2, grid=dict(warmup=[0.0, 0.05], lr=[1, 4])),
    ),
    dict(
        id="warmup-coco",
        figure="ours: Mask R-CNN on COCO, five optimizers, with warmups and without",
        runs={
            name: f"configs/coco/mask-rcnn_r50_fpn_syncbn-scratch-warmup-{name}_4x_coco.py"
            for name in _others
        },
        seeds=[0, 1, 2],
        grid=dict(warmup=_warmup, lr=_rates(0.25, 1, 4)),
        claims=_claims("warmup-coco"),
        replica=dict(longest=3, validations=2, grid=dict(warmup=[0.0, 0.05], lr=[1, 4])),
    ),
]
