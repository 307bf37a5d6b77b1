"""Training images mixed with others of their batch, on the training device."""

from __future__ import annotations

from collections.abc import Mapping

from torchvision.transforms import v2

from benchmarks.errors import UsageError

_KINDS = {"mixup": v2.MixUp, "cutmix": v2.CutMix}


def build_mixing(num_classes: int, alphas: Mapping[str, float]) -> v2.Transform:
    """Build torchvision's MixUp, CutMix, or an even choice between both at each batch.

    One share is drawn per batch, from Beta(α, α) by torch's CPU generator, and each image is mixed
    with the one before it.

    Args:
        num_classes: number of classes.
        alphas: α by kind, ``'mixup'`` or ``'cutmix'`` or both.

    Returns:
        A transform from (images (N, C, H, W), labels (N,)) to images of the same shape and soft
        labels (N, num_classes).

    Raises:
        UsageError: unknown kind, or an α that is not positive.

    Source: Zhang et al., *mixup* (2018); Yun et al., *CutMix* (2019); Touvron et al., *DeiT*
    (2021), choose between both.
    """
    for kind, alpha in alphas.items():
        if kind not in _KINDS or not alpha > 0:
            raise UsageError(
                f"model.mixing: {kind}={alpha} cannot be used: "
                "give mixup, cutmix or both, each above 0, such as dict(mixup=0.8, cutmix=1.0)"
            )
    return v2.RandomChoice(
        [_KINDS[kind](alpha=alpha, num_classes=num_classes) for kind, alpha in alphas.items()]
    )
