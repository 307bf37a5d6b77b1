from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from benchmarks.errors import UsageError
from benchmarks.pipelines.classification.mixing import build_mixing

CLASSES = 6
LABELS = torch.arange(CLASSES)
IMAGES = torch.randn(CLASSES, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BEFORE = IMAGES.roll(1, 0)


def mixed(seed: int, **alphas: float) -> tuple[Tensor, Tensor, float]:
    """Mix a batch of one image per class; return it, its targets, and the images' own share."""
    torch.manual_seed(seed)
    images, targets = build_mixing(CLASSES, alphas)(IMAGES, LABELS)
    own = targets.diagonal()
    torch.testing.assert_close(own, own[0].expand(CLASSES))
    expected = own[0] * torch.eye(CLASSES) + (1 - own[0]) * torch.eye(CLASSES).roll(1, 0)
    torch.testing.assert_close(targets, expected)
    return images, targets, float(own[0])


def of_either(images: Tensor) -> Tensor:
    return (images == IMAGES) | (images == BEFORE)


@pytest.mark.parametrize("seed", range(5))
def test_mixup_blends_images_as_it_blends_labels(seed: int) -> None:
    images, _, own = mixed(seed, mixup=0.8)
    torch.testing.assert_close(images, own * IMAGES + (1 - own) * BEFORE)


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_pastes_a_box_of_the_share_that_labels_say(seed: int) -> None:
    images, _, own = mixed(seed, cutmix=1.0)
    assert of_either(images).all()
    assert (images == IMAGES).float().mean() == pytest.approx(own, abs=1e-6)


def test_both_are_chosen_alike_often() -> None:
    kinds = Counter(bool(of_either(mixed(s, mixup=0.8, cutmix=1.0)[0]).all()) for s in range(200))
    assert 70 < kinds[True] < 130


@pytest.mark.parametrize(("alpha", "variance"), [(0.8, 0.25 / 2.6), (0.1, 0.25 / 1.2)])
def test_shares_are_of_a_beta_distribution(alpha: float, variance: float) -> None:
    shares = torch.tensor([mixed(seed, mixup=alpha)[2] for seed in range(400)])
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.06)
    assert float(shares.var()) == pytest.approx(variance, rel=0.2)


@pytest.mark.parametrize("alphas", [dict(mixup=0.0), dict(mix=1.0), dict(mixup=0.8, cutmix=-1)])
def test_what_cannot_be_used_is_refused_in_one_line(alphas: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"model.mixing: .* cannot be used") as caught:
        build_mixing(CLASSES, alphas)
    assert "\n" not in str(caught.value)
