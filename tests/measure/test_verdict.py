"""How gradient, graph and function are weighed against each other."""

from __future__ import annotations

import pytest
import torch

from smd_hooks.measure.functional import ScaleResponse
from smd_hooks.measure.structure import Destination
from smd_hooks.measure.verdict import is_tie, judge, largest_row_statistic, tensor_statistic

NORM = Destination(("bn",), "normalized by bn", normalized=True)
SUM = Destination((), "reaches a sum before any norm", normalized=False)
BIAS = Destination(("gn",), "only jointly with its bias", normalized=False, certain=True)
INVARIANT = ScaleResponse(1e-6, 1.0, 1e-4)
CHANGES = ScaleResponse(0.3, 1.0, 1e-4)
HARDLY_DEPENDS = ScaleResponse(1e-6, 2e-6, 1e-4)
HIDDEN = Destination((), "reaches compiled code", normalized=None)
FAILED = "the functional test failed: RuntimeError: no"


@pytest.mark.parametrize(
    ("statistic", "destination", "tie"),
    [
        (1e-6, NORM, False),
        (1e-3, NORM, True),
        (0.5, NORM, True),
        (1e-6, SUM, True),
        (1e-3, SUM, True),
        (0.5, SUM, False),
        (1e-6, None, False),
        (1e-3, None, True),
        (0.5, None, False),
        (1e-3, BIAS, False),
        (1e-6, HIDDEN, False),
        (1e-3, HIDDEN, True),
        (0.5, HIDDEN, False),
        (None, NORM, False),
    ],
)
def test_the_function_is_asked_where_the_others_disagree(
    statistic: float | None, destination: Destination | None, tie: bool
) -> None:
    assert is_tie(statistic, destination) is tie


@pytest.mark.parametrize(
    ("statistic", "destination", "response", "invariant", "reason"),
    [
        (1e-6, NORM, None, True, "normalized by bn"),
        (0.5, NORM, None, False, "eps is large beside it"),
        (0.5, NORM, INVARIANT, True, "normalized by bn"),
        (1e-3, NORM, CHANGES, False, "eps is large beside it"),
        (1e-3, NORM, HARDLY_DEPENDS, True, "normalized by bn"),
        (1e-3, NORM, FAILED, True, "normalized by bn (the functional test failed: Runtime"),
        (1e-6, SUM, INVARIANT, True, "though no norm was found"),
        (1e-6, SUM, CHANGES, False, "reaches a sum"),
        (1e-6, SUM, HARDLY_DEPENDS, False, "reaches a sum"),
        (1e-6, SUM, None, True, "though no norm was found"),
        (1e-3, SUM, None, False, "reaches a sum"),
        (1e-3, None, None, True, "though no norm was found"),
        (0.5, None, None, False, "its gradient has a radial part"),
        (1e-3, HIDDEN, None, True, "its gradient is tangential; the weight reaches compiled code"),
        (0.5, HIDDEN, None, False, "has a radial part; the weight reaches compiled code"),
        (1e-6, BIAS, INVARIANT, False, "only jointly with its bias"),
        (None, NORM, INVARIANT, None, "zero in every batch"),
    ],
)
def test_the_verdict(
    statistic: float | None,
    destination: Destination | None,
    response: ScaleResponse | str | None,
    invariant: bool | None,
    reason: str,
) -> None:
    verdict, words = judge(statistic, destination, response)
    assert verdict is invariant
    assert reason in words


def test_batches_without_a_gradient_and_dead_rows_do_not_count() -> None:
    sums = torch.tensor([[1.0, 0.0], [0.0, 0.0], [3.0, 0.0]]).double()
    norms = torch.tensor([[2.0, 0.0], [0.0, 0.0], [3.0, 0.0]]).double()
    products = torch.stack((sums, norms))
    statistic, batches = tensor_statistic(products)
    assert (statistic, batches) == (pytest.approx((0.25 + 1) / 2), 2)
    assert largest_row_statistic(products) == pytest.approx((0.25 + 1) / 2)
    assert tensor_statistic(products * 0) == (None, 0)
    assert largest_row_statistic(products * 0) is None
