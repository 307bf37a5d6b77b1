from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smd_hooks.measure.norm_variance import (
    VarianceReader,
    running_variance,
    smallest_factor,
    variance_seen,
)
from smd_hooks.measure.rescaling import EPS_SHARE
from smd_hooks.measure.verdict import Z2_LIMIT
from tests.measure.host_reads import NoHostRead

X = torch.randn(6, 8, 5, 5, generator=torch.Generator().manual_seed(0))


def normalized(norm: nn.Module, x: Tensor) -> Tensor:
    return norm(x).detach()


@pytest.mark.parametrize(
    ("norm", "x"),
    [
        (nn.BatchNorm2d(8, affine=False), X),
        (nn.InstanceNorm2d(8), X),
        (nn.GroupNorm(2, 8, affine=False), X),
        (nn.LayerNorm(5, elementwise_affine=False), X),
        (nn.LayerNorm((5, 5), elementwise_affine=False), X),
        (nn.RMSNorm(5, eps=1e-5, elementwise_affine=False), X),
        (nn.BatchNorm1d(8, affine=False), X[:, :, 0, 0]),
    ],
)
def test_an_eps_as_large_as_the_variance_halves_the_output_s_square(norm: Any, x: Tensor) -> None:
    """The norm itself says what it divides by; with one size of input there is one median."""
    ones = normalized(norm, x)  # what a norm returns has its variance everywhere the same
    variance = variance_seen(norm, 3 * ones)
    assert variance is not None
    assert float(variance) == pytest.approx(9, rel=1e-3)
    norm.eps = float(variance)
    ratio = normalized(norm, 3 * ones).square().mean() / ones.square().mean()
    assert float(ratio) == pytest.approx(0.5, rel=1e-3)


def test_other_modules_are_not_asked() -> None:
    assert variance_seen(nn.Linear(5, 2), X) is None
    reader = VarianceReader([nn.Linear(5, 2)])
    reader.ask()
    assert not reader.asked
    assert reader.read() == {}


def test_running_variances_are_read_at_once_and_in_one_copy() -> None:
    norms = [nn.BatchNorm2d(4), nn.BatchNorm2d(2)]
    for norm, value in zip(norms, (2.0, 5.0), strict=True):
        norm.running_var.fill_(value)
    reader = VarianceReader(norms)
    reader.ask()
    assert not reader.asked
    with NoHostRead():
        assert reader.read() == {norms[0]: 2.0, norms[1]: 5.0}


def test_a_norm_without_running_variance_answers_after_a_forward_in_train_mode() -> None:
    norm = nn.GroupNorm(2, 8)
    reader = VarianceReader([norm])
    assert running_variance(norm) is None
    reader.ask()
    assert reader.asked
    norm.eval()
    norm(100 * X)
    norm.train()
    pickle.dumps(norm)  # hooks stay behind
    norm(X)
    norm(100 * X)  # the hook is gone
    expected = X.reshape(6, 2, -1).var(2, correction=0).median()
    assert reader.read() == {norm: pytest.approx(float(expected))}
    assert not reader.asked
    assert not norm._forward_pre_hooks
    assert reader.read() == {}


def test_closing_takes_the_hooks_away() -> None:
    norm = nn.LayerNorm(5)
    reader = VarianceReader([norm])
    reader.ask()
    reader.close()
    norm(X)
    assert reader.read() == {}


def test_eps_matters_from_its_share_on() -> None:
    norm, factor = nn.BatchNorm2d(4), 10**-0.25
    variance = norm.eps / EPS_SHARE / factor**2
    assert smallest_factor(norm, variance, EPS_SHARE) == pytest.approx(factor)
    assert smallest_factor(norm, 0.0, EPS_SHARE) == math.inf
    assert smallest_factor(nn.Linear(2, 2), 1.0, EPS_SHARE) == 0


@pytest.mark.parametrize("k", [2, 10, 100])
@pytest.mark.parametrize("share", [1e-3, EPS_SHARE, 0.3])
@pytest.mark.parametrize("exponent", [0, 1])
def test_rescaling_costs_at_most_a_share_of_what_it_saves(
    k: float, share: float, exponent: int
) -> None:
    factor = k ** (-1 / (2 + 2 * exponent))
    norm = nn.BatchNorm2d(8, affine=False).double()
    before = torch.randn(32, 8, 6, 6, dtype=torch.float64)
    before = before / before.std((0, 2, 3), correction=0, keepdim=True)
    norm.eps = share * factor**2  # the variance is 1
    old, new = norm(before), norm(before * factor)
    change = 1 - float(new.norm() / old.norm())
    assert change == pytest.approx(1 - math.sqrt((1 + share * factor**2) / (1 + share)), rel=1e-9)
    # to first order s(1 − c²)/2, of the 1 − c^(1+p) that angles would be off by
    cost = change / (1 - factor ** (1 + exponent))
    assert cost == pytest.approx(share / 2 * (1 + factor if exponent == 0 else 1), rel=share)
    assert cost < share


def z2_with_eps(share: float, seed: int) -> float:
    """Mean z² of a net's last conv, with such a share of eps in the variance at each norm."""
    torch.manual_seed(seed)
    images, labels = torch.randn(128, 3, 10, 10), torch.randint(0, 10, (128,))
    convs = [nn.Conv2d(3, 16, 3, bias=False), nn.Conv2d(16, 16, 3, bias=False)]
    norms, head = [nn.BatchNorm2d(16), nn.BatchNorm2d(16)], nn.Linear(16, 10)
    products: list[Tensor] = []
    for batch in range(-1, 16):
        x = images if batch < 0 else images[batch * 8 :][:8]
        for conv, norm in zip(convs, norms, strict=True):
            x = conv(x)
            if batch < 0:
                norm.eps = share * float(x.detach().var((0, 2, 3)).median())
            x = torch.relu(norm(x))
        if batch >= 0:
            loss = nn.functional.cross_entropy(head(x.mean((2, 3))), labels[batch * 8 :][:8])
            (gradient,) = torch.autograd.grad(loss, convs[1].weight)
            products.append((convs[1].weight * gradient).detach().flatten())
    stacked = torch.stack(products)
    return float((stacked.sum(1) ** 2 / (stacked**2).sum(1)).mean())


def test_the_verdict_outlasts_the_share_that_is_allowed_and_no_more() -> None:
    seeds = range(8)
    assert max(z2_with_eps(EPS_SHARE, seed) for seed in seeds) < Z2_LIMIT / 2
    assert max(z2_with_eps(3 * EPS_SHARE, seed) for seed in seeds) > Z2_LIMIT
