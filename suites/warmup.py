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


def _claims(name):
    about = ("sgdm", "adamw", "lionar-bias", "rotational-adamw", "lionar", "control-exchanged")
    return [f"{name}-{what}" for what in about]


def _begun_alike(lr, weight_decay, factor, width=1.0, regularized=()):
    """Of a replica, keep also how weights begin in proportion to their equilibrium.

    The first steps are what a warmup is for. Where time runs ``factor`` times as fast, lr and
    weight decay each grow by its root: their product gives Δ*, which does, and their quotient the
    equilibrium norm, which stays; so the first step over Δ* stays, too. A network that is so much
    narrower has weights √(1/width) times as large, for the same sizes of what they meet; their
    equilibrium norms are as large where lr is as many times larger, and decay smaller; gains and
    biases, which are no larger there, take steps that are not.

    Not kept: the first step itself, which is as many times larger as Δ*, and how long momentum
    lasts, which is a larger share of fewer steps.

    Args:
        lr: Of the config.
        weight_decay: Of the config.
        factor: How much faster time runs.
        width: Of the replica's network, over the original's.
        regularized: Matrices that decay holds down for the loss's sake, by parts of their names:
            what it does there depends on its own size.
    """
    larger, faster = (1 / width) ** 0.5, factor**0.5
    optimizer = {
        "optim_wrapper.optimizer.lr": float(f"{lr * larger * faster:.3g}"),
        "optim_wrapper.optimizer.weight_decay": float(f"{weight_decay / larger * faster:.3g}"),
    }
    keys = {name: dict(decay_mult=float(f"{larger / faster:.3g}")) for name in regularized}
    if width != 1:
        own = float(f"{1 / larger:.3g}")
        optimizer["optim_wrapper.paramwise_cfg.bias_lr_mult"] = own
        keys["norm"] = dict(lr_mult=own, decay_mult=0.0)
    return optimizer | ({"optim_wrapper.paramwise_cfg.custom_keys": keys} if keys else {})


_ranges = {  # of learning rates, over the configs' own: around each one's best
    "adamw": 0.5,
    **dict.fromkeys(("lion", "liona", "liona-bias"), 1),
    **dict.fromkeys(("lionar", "lionar-rrc", "lionar-bias", "lionar-no-momentum"), 4),
    "rotational-adamw": 4,
}


def _gpt(**width):
    lrs, decays = {"lion": 6e-5}, {"lion": 1.0}
    begun_alike = {
        name: _begun_alike(lrs.get(name, 6e-4) * times, decays.get(name, 0.1), 12.5, **width)
        for name, times in _ranges.items()
    }
    return {"": {"custom_hooks.0.interval": 2}} | begun_alike


def _images(sgd_lr, lr, factor, regularized):
    held_down = dict(regularized=regularized)  # not what turns by a set angle
    return {
        "": _begun_alike(lr, 0.1, factor),
        "adamw": _begun_alike(lr, 0.1, factor, **held_down),
        "sgdm": _begun_alike(sgd_lr, 1e-4, factor, **held_down),
    }


_predictors = ("rpn_cls.weight", "rpn_reg.weight", "fc_cls.weight", "fc_reg.weight")
_predictors += ("conv_logits.weight",)

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
            seeds=[0, 1, 2, 3],
            fastest=12.5,
            validations=1,
            grid=dict(warmup=[0.0, 0.1], lr=[0.5, 1, 2, 4]),
            options=_gpt(),
            embedded_options=_gpt(width=64 / 768),
        ),
    ),
    dict(
        id="warmup-imagenet",
        figure="ours: ResNet-50 on ImageNet, five optimizers, with warmups and without",
        runs={n: f"configs/imagenet/resnet50_warmup-{n}_8xb32-90e.py" for n in _others},
        seeds=[0, 1, 2],
        grid=dict(warmup=_warmup, lr=_rates(0.25, 1, 4, 16)),
        claims=_claims("warmup-imagenet"),
        # at 4 times the learning rate 25 steps are a relaxation time
        replica=dict(
            fastest=25,
            longest=2,
            validations=2,
            grid=dict(warmup=[0.0, 0.2], lr=[1, 4]),
            options=_images(0.1, 1e-3, 25, ("fc.weight",)),
        ),
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
        replica=dict(
            fastest=100,
            longest=2,
            validations=2,
            grid=dict(warmup=[0.0, 0.2], lr=[1, 4]),
            options=_images(0.02, 2e-4, 100, _predictors),
        ),
    ),
]
