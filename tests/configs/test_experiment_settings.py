"""Every experiment's settings, against those of the papers, and ours where papers say nothing.

The table is written by hand, once more and independently of the configs: optimizer with all its
options, batch of all GPUs, length, schedule, and the equilibrium angle that lr and weight decay
imply.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from smd_hooks.theory import NoPrediction, UpdateRule, equilibrium_angle
from tests.configs.comparing import CONFIGS, load

FOLDERS = ("imagenet", "coco", "cifar10", "gpt")

GOYAL = "×0.1 at 30 60 80 epochs"
RE_90 = "warmup 0–1 epochs, cosine 1–90 epochs"
RE_200 = "warmup 0–5 epochs, cosine 5–200 epochs"
COCO_4X = "warmup 0–500 iterations, ×0.1 at 300000 340000 iterations"
WARMUP_90 = f"share 0.0 of 150150 iterations, {GOYAL}"
WARMUP_4X = "share 0.0 of 300000 iterations, ×0.1 at 300000 340000 iterations"
TRAPEZOID = "share 0.05 of 5000 iterations, down 2500–5001 iterations"
COCO_1X = "warmup 0–500 iterations, ×0.1 at 8 11 epochs"


@dataclass(frozen=True)
class Row:
    """What a config must say; the angle in milliradians per step, None where there is none."""

    optimizer: dict[str, Any]
    batch: int
    length: str
    schedule: str
    angle: float | None


def sgd(lr: float, weight_decay: float, momentum: float = 0.9, **options: Any) -> dict[str, Any]:
    given = dict(type="SGD", lr=lr, weight_decay=weight_decay, momentum=momentum)
    return given | options


def other(kind: str, lr: float, weight_decay: float, **options: Any) -> dict[str, Any]:
    return dict(type=kind, lr=lr, weight_decay=weight_decay, **options)


def normalized(
    stem: str, tail: str, sgd_lr: float, adam_lr: float, zero_mean: bool, of: tuple[Any, ...]
) -> dict[str, Row]:
    """Rows of the optimizers that are compared on one task, at one angle but for LionA.

    LionA takes over the norm of AdamW's updates. Signs are less alike from step to step, by the
    arcsine law, so that its equilibrium angle is larger.
    """
    options = {} if zero_mean else {"zero_mean": False}
    optimizers = {
        "adamw": other("AdamW", adam_lr, 0.1),
        "rotational-sgd": sgd(sgd_lr, 1e-4, type="RotationalSGD", **options),
        "rotational-adamw": other("RotationalAdamW", adam_lr, 0.1, **options),
        "liona": other("LionA", adam_lr, 0.1),
        "lionar": other("LionAR", adam_lr, 0.1),
    }
    rows = {f"{stem}{name}{tail}": Row(optimizer, *of) for name, optimizer in optimizers.items()}
    signs = rows[f"{stem}liona{tail}"]
    rows[f"{stem}liona{tail}"] = replace(signs, angle=signs.angle * SIGNS)
    return rows


def signs(beta: float, nesterov: bool = False) -> float:
    """Equilibrium angle of the sign of a momentum, over that of the momentum itself.

    By the arcsine law for the correlation of signs, from the correlation of the momentum with
    itself some steps before, which its weights on gradients give.
    """
    weights = (1 - beta) * beta ** np.arange(3000.0)
    if nesterov:
        weights = beta * weights
        weights[0] += 1 - beta
    lags = np.array([weights[lag:] @ weights[: len(weights) - lag] for lag in range(1500)])
    alike = 2 / math.pi * np.arcsin(np.clip(lags / lags[0], -1, 1))
    return math.sqrt((1 + beta) / (1 - beta) / (1 + 2 * alike[1:].sum()))


SIGNS = signs(0.9)
NO_WARMUP = dict(beta=0.98, nesterov=True, inverse_bias_correction=True)
EPOCHS_90 = (256, "90 epochs", GOYAL, 3.244)
SCRATCH = (16, "360000 iterations", COCO_4X, 1.451)
FASTER = (16, "12 epochs", COCO_1X, 1.451)
RETINA = (16, "12 epochs", COCO_1X, 1.026)
FIG4 = (128, "200 epochs", "×0.1 at 60 120 160 epochs")
GPT2 = (480, "5000 iterations", TRAPEZOID)
SMALL, LARGE = (128, "200 epochs", RE_200), (2048, "200 epochs", RE_200)

SOURCE = re.compile(
    r"SMD \(Wan et al\.\), Fig\. [234]|Kosson et al\b.*; figure number not read\)"
    r"|ours, in no paper|[Tt]he pairing is ours|as mmdet ships it"
)
"""Paper and figure, or that the figure's number was not read, or that there is none."""

TABLE = {
    "imagenet/resnet50_constant-lr_8xb32-450k": Row(
        sgd(0.2, 1e-4), 256, "450000 iterations", "", 4.588
    ),
    "imagenet/resnet50_constant-lr-sgd_8xb32-450k": Row(
        sgd(0.2, 1e-4, momentum=0.0), 256, "450000 iterations", "", 6.325
    ),
    "imagenet/resnet50_goyal_8xb32-90e": Row(sgd(0.1, 1e-4), *EPOCHS_90),
    "imagenet/resnet50_goyal-rescaled_8xb32-90e": Row(sgd(0.1, 1e-4), *EPOCHS_90),
    "imagenet/resnet50_adamw-rescaled_8xb32-90e": Row(other("AdamW", 1e-3, 0.1), *EPOCHS_90),
    **normalized("imagenet/resnet50_", "_8xb32-90e", 0.1, 1e-3, True, EPOCHS_90),
    "imagenet/resnet50_lionar-no-warmup_8xb32-90e": Row(
        other("LionAR", 1e-3, 0.1, **NO_WARMUP), 256, "90 epochs", GOYAL, 1.421
    ),
    "imagenet/resnet50_cosine_8xb32-90e": Row(sgd(0.1, 1e-4), 256, "90 epochs", RE_90, 3.244),
    "imagenet/resnet50_cosine-rotational-sgd_8xb32-90e": Row(
        sgd(0.1, 1e-4, type="RotationalSGD"), 256, "90 epochs", RE_90, 3.244
    ),
    "imagenet/resnet50_large-batch_8xb1024-10e": Row(
        sgd(3.2, 1e-4), 8192, "10 epochs", "cosine 0–10 epochs", 18.35
    ),
    "imagenet/resnet50_large-batch-rotational-sgd_8xb1024-10e": Row(
        sgd(3.2, 1e-4, type="RotationalSGD"), 8192, "10 epochs", "cosine 0–10 epochs", 18.35
    ),
    "imagenet/deit-tiny_8xb128-300e": Row(
        *(other("AdamW", 1e-3, 0.05), 1024, "300 epochs"),
        *("warmup 0–5 epochs, cosine 5–300 epochs", 2.294),
    ),
    "imagenet/deit-tiny-rotational-adamw_8xb128-300e": Row(
        *(other("RotationalAdamW", 1e-3, 0.05), 1024, "300 epochs"),
        *("warmup 0–5 epochs, cosine 5–300 epochs", 2.294),
    ),
    "coco/mask-rcnn_r50_fpn_syncbn-scratch_4x_coco": Row(sgd(0.02, 1e-4), *SCRATCH),
    "coco/mask-rcnn_r50_fpn_syncbn-scratch-rescaled_4x_coco": Row(sgd(0.02, 1e-4), *SCRATCH),
    **normalized("coco/mask-rcnn_r50_fpn_syncbn-scratch-", "_4x_coco", 0.02, 2e-4, True, SCRATCH),
    "coco/faster-rcnn_r50_fpn_1x_coco": Row(sgd(0.02, 1e-4), *FASTER),
    **normalized("coco/faster-rcnn_r50_fpn-", "_1x_coco", 0.02, 2e-4, False, FASTER),
    "coco/retinanet_r50_fpn_1x_coco": Row(sgd(0.01, 1e-4), *RETINA),
    **normalized("coco/retinanet_r50_fpn-", "_1x_coco", 0.01, 1e-4, False, RETINA),
    "cifar10/resnet18_sgdm_b128-200e": Row(sgd(0.1, 5e-4), *FIG4, 7.255),
    "cifar10/resnet18_sgdm-rescaled_b128-200e": Row(sgd(0.1, 5e-4), *FIG4, 7.255),
    "cifar10/resnet18_adam_b128-200e": Row(other("Adam", 1e-3, 5e-4), *FIG4, None),
    "cifar10/resnet18_adamw_b128-200e": Row(other("AdamW", 0.05, 0.01), *SMALL, 7.255),
    "cifar10/resnet18_adam-l2_b128-200e": Row(other("Adam", 1e-3, 5e-4), *SMALL, None),
}
for _kind, _prefix in (("", ""), ("Rotational", "rotational-")):
    _sgd = "sgd" if _prefix else "sgdm"
    _adamw, _lion = f"{_kind}AdamW", f"{_kind}Lion"
    TABLE |= {
        f"cifar10/resnet20_{_prefix}adamw_b128-200e": Row(other(_adamw, 0.05, 0.01), *SMALL, 7.255),
        f"cifar10/resnet20_{_prefix}adamw_b2048-200e": Row(
            other(_adamw, 0.16, 0.01), *LARGE, 12.98
        ),
        f"cifar10/resnet20_{_prefix}{_sgd}_b128-200e": Row(
            sgd(0.5, 1e-4, type=f"{_kind}SGD"), *SMALL, 7.255
        ),
        f"cifar10/resnet20_{_prefix}{_sgd}_b2048-200e": Row(
            sgd(4.8, 1e-4, type=f"{_kind}SGD"), *LARGE, 22.48
        ),
        f"cifar10/resnet20_{_prefix}lion_b128-200e": Row(other(_lion, 5e-4, 1.0), *SMALL, 4.696),
        f"cifar10/resnet20_{_prefix}lion_b2048-200e": Row(other(_lion, 0.016, 1.0), *LARGE, 26.56),
    }


for _folder, _stem, _tail, _like, _of in (
    ("imagenet/resnet50_", "warmup-", "_8xb32-90e", "imagenet/resnet50_{}_8xb32-90e", WARMUP_90),
    (
        *("coco/mask-rcnn_r50_fpn_syncbn-scratch-", "warmup-", "_4x_coco"),
        *("coco/mask-rcnn_r50_fpn_syncbn-scratch-{}_4x_coco", WARMUP_4X),
    ),
):
    _plain = {"sgdm": _like.format("goyal").replace("-goyal", "")}
    for _role in ("sgdm", "adamw", "lionar", "rotational-adamw"):
        _row = TABLE[_plain.get(_role, _like.format(_role))]
        if _role == "rotational-adamw":
            _row = replace(_row, optimizer=_row.optimizer | {"schedule": "linear"})
        TABLE[f"{_folder}{_stem}{_role}{_tail}"] = replace(_row, schedule=_of)
    TABLE[f"{_folder}{_stem}lionar-bias{_tail}"] = replace(
        _row,
        optimizer=other("LionAR", _row.optimizer["lr"], 0.1, **NO_WARMUP),
        schedule=_of,
        # the momentum's memory is longer: (1 − β)/(1 + β) of .98, over that of .9
        angle=_row.angle * math.sqrt((0.02 / 1.98) / (0.1 / 1.9)),
    )
_gpt_adam = dict(betas=(0.9, 0.95), eps=1e-8)
TABLE |= {
    f"gpt/gpt2-124m_{_name}_8xb60-5k": Row(_optimizer, *GPT2, _angle)
    for _name, _optimizer, _angle in (
        ("adamw", other("AdamW", 6e-4, 0.1, **_gpt_adam), 2.513),
        (
            "rotational-adamw",
            other("RotationalAdamW", 6e-4, 0.1, **_gpt_adam, schedule="linear"),
            2.513,
        ),
        ("lion", other("Lion", 6e-5, 1.0), 1.627),
        ("liona", other("LionA", 6e-4, 0.1), 2.513 * SIGNS),
        ("liona-bias", other("LionA", 6e-4, 0.1, **NO_WARMUP), 1.101 * signs(0.98, nesterov=True)),
        ("lionar", other("LionAR", 6e-4, 0.1), 2.513),
        ("lionar-rrc", other("LionAR", 6e-4, 0.1), 2.513),
        ("lionar-bias", other("LionAR", 6e-4, 0.1, **NO_WARMUP), 1.101),
        ("lionar-no-momentum", other("LionAR", 6e-4, 0.1, beta=0.0), 10.954),
    )
}


def schedulers_of(cfg: Config) -> list[Any]:
    found = cfg.get("param_scheduler") or []
    return found if isinstance(found, list) else [found]


def in_words(scheduler: Any) -> str:
    begin, end = scheduler.get("begin", 0), scheduler.get("end")
    unit = "epochs" if scheduler.by_epoch else "iterations"
    if scheduler.type == "WarmupShareLR":
        return f"share {scheduler.share} of {scheduler.total} {unit}"
    if scheduler.type == "LinearLR" and begin:
        assert (scheduler.start_factor, scheduler.end_factor) == (1, 0)
        return f"down {begin}–{end} {unit}"
    if scheduler.type == "LinearLR":
        assert scheduler.start_factor == 1e-3
        return f"warmup {begin}–{end} {unit}"
    if scheduler.type == "CosineAnnealingLR":
        assert (scheduler.T_max, scheduler.eta_min) == (end - begin, 0)
        assert scheduler.convert_to_iter_based
        return f"cosine {begin}–{end} {unit}"
    assert scheduler.type == "MultiStepLR"
    return f"×{scheduler.gamma} at {' '.join(map(str, scheduler.milestones))} {unit}"


def test_no_config_is_forgotten() -> None:
    shipped = {f"{f}/{path.stem}" for f in FOLDERS for path in (CONFIGS / f).glob("*.py")}
    assert shipped == TABLE.keys()


@pytest.mark.parametrize("name", TABLE)
def test_settings_are_the_papers(name: str) -> None:
    cfg, row = load(name), TABLE[name]
    assert cfg.optim_wrapper.optimizer == row.optimizer
    gpus = 1 if name.startswith("cifar10") else 8
    assert cfg.train_dataloader.batch_size * gpus == row.batch == cfg.auto_scale_lr.base_batch_size
    by_epoch = "max_epochs" in cfg.train_cfg
    length = f"{cfg.train_cfg['max_epochs' if by_epoch else 'max_iters']} "
    assert length + ("epochs" if by_epoch else "iterations") == row.length
    sampler = cfg.train_dataloader.sampler.type
    assert sampler == ("DefaultSampler" if by_epoch else "InfiniteSampler")
    assert ", ".join(map(in_words, schedulers_of(cfg))) == row.schedule


@pytest.mark.parametrize("name", TABLE)
def test_norms_and_biases_decay_in_mmdets_own_recipes_alone(name: str) -> None:
    options = load(name).optim_wrapper.get("paramwise_cfg", {})
    multipliers = (options.get("norm_decay_mult"), options.get("bias_decay_mult"))
    as_shipped = name.startswith(("coco/faster", "coco/retina"))
    assert multipliers == ((None, None) if as_shipped else (0.0, 0.0))
    keys = {key for key, value in options.get("custom_keys", {}).items() if "decay_mult" in value}
    assert keys == ({"cls_token", "pos_embed"} if "deit" in name else set())


@pytest.mark.parametrize("name", TABLE)
def test_images_are_mixed_and_labels_smoothed_for_deit_alone(name: str) -> None:
    model = load(name).model
    mixed = (model.get("mixing"), model.get("label_smoothing"))
    deit = "deit" in name
    assert mixed == ((dict(mixup=0.8, cutmix=1.0), 0.1) if deit else (None, None))


@pytest.mark.parametrize("name", TABLE)
def test_learning_rate_and_decay_imply_the_stated_angle(name: str) -> None:
    optimizer, expected = load(name).optim_wrapper.optimizer, TABLE[name].angle
    if expected is None:
        with pytest.raises(NoPrediction, match="depends on the gradient"):
            equilibrium_angle(UpdateRule.from_config(optimizer))
        return
    angle = 1e3 * equilibrium_angle(UpdateRule.from_config(optimizer))
    # Lion's by the closed form, which linearises the sign
    assert angle == pytest.approx(expected, rel=1e-2 if optimizer.type[-4:] == "Lion" else 1e-3)
    doubled = {**optimizer, "weight_decay": 2 * optimizer.weight_decay}
    assert 1e3 * equilibrium_angle(UpdateRule.from_config(doubled)) > 1.3 * expected  # a control


@pytest.mark.parametrize("name", TABLE)
def test_it_says_where_it_comes_from(name: str) -> None:
    header = (CONFIGS / f"{name}.py").read_text().partition("\n_base_")[0]
    assert header.startswith(('"""', "# "))
    assert SOURCE.search(" ".join(header.replace("\n# ", "\n").split()))


@pytest.mark.parametrize(
    "header", ["SMD (Wan et al.), ImageNet", "Rotational Equilibrium (Kosson et al. 2023), AdamW"]
)
def test_a_paper_without_a_figure_is_no_source(header: str) -> None:
    assert not SOURCE.search(header)


@pytest.mark.parametrize(
    ("name", "warm", "length"),
    [
        ("imagenet/resnet50_cosine_8xb32-90e", 1, 90),
        ("imagenet/deit-tiny_8xb128-300e", 5, 300),
        ("cifar10/resnet20_adamw_b128-200e", 5, 200),
        ("imagenet/resnet50_large-batch_8xb1024-10e", 0, 10),
    ],
)
def test_the_rate_rises_to_its_peak_and_falls_to_zero_by_iterations(
    name: str, warm: int, length: int
) -> None:
    cfg, per_epoch = load(name), 20
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedulers = [
        PARAM_SCHEDULERS.build(
            dict(scheduler), default_args=dict(optimizer=optimizer, epoch_length=per_epoch)
        )
        for scheduler in schedulers_of(cfg)
    ]
    rates = []
    for _ in range(length * per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    peak = warm * per_epoch
    assert rates[peak] == pytest.approx(1)
    assert all(a <= b for a, b in pairwise(rates[: peak + 1]))
    assert all(a >= b for a, b in pairwise(rates[peak:]))
    assert len(set(rates)) > 0.95 * len(rates)  # by iterations
    assert rates[(peak + length * per_epoch) // 2] == pytest.approx(0.5, abs=1e-2)
    assert rates[-1] < 1e-3
