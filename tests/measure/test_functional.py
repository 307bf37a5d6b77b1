"""The functional test: what it answers, that float32 is enough, and that it leaves no trace."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smd_hooks.measure.functional import (
    LOSSES_LIMIT,
    OUTPUT_LIMIT,
    ForwardCall,
    ScaleResponse,
    scale_response,
)

from .observing import bounded, observe, train


def network(norm: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    first = (nn.Conv2d(4, 8, 3, bias=False), norm, nn.ReLU(), nn.Dropout(0.3))
    return nn.Sequential(
        *first, nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 2, 1)
    )


def called(model: nn.Module, dtype: torch.dtype = torch.float32) -> ForwardCall:
    torch.manual_seed(1)
    return ForwardCall.of(model, (torch.randn(6, 4, 12, 12).to(dtype),), {})


NORMS = [
    nn.BatchNorm2d(8),
    nn.GroupNorm(2, 8),
    nn.LayerNorm([8, 10, 10]),
    nn.InstanceNorm2d(8),
    nn.RMSNorm([8, 10, 10]),
]


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: type(norm).__name__)
def test_float32_and_powers_of_two_tell_as_much_as_float64(norm: nn.Module) -> None:
    model = network(norm)
    exact = copy.deepcopy(model).double()
    responses = {}
    for index in (0, 7):
        responses[index] = scale_response(called(model), model[index].weight)
        reference = scale_response(called(exact, torch.float64), exact[index].weight)
        assert responses[index].change == pytest.approx(reference.change, rel=1e-3, abs=1e-6)
    assert responses[0].change < OUTPUT_LIMIT
    assert responses[0].invariant is True
    assert responses[7].change > 0.1
    assert responses[7].invariant is False


@pytest.mark.parametrize("norm", [nn.Identity(), nn.Sigmoid(), nn.Hardtanh()])
def test_what_is_not_invariant_fails(norm: nn.Module) -> None:
    model = network(norm)
    model[5] = nn.Tanh()  # no norm behind it either
    response = scale_response(called(model), model[0].weight)
    assert response.change > 1e-2
    assert response.invariant is False


def test_a_norm_in_eval_mode_is_asked_in_eval_mode() -> None:
    model = network(nn.BatchNorm2d(8))
    model[1].eval()
    call = called(model)
    model.train()
    assert scale_response(call, model[0].weight).invariant is False
    assert model[1].training is True
    model.eval()
    assert scale_response(called(network(nn.BatchNorm2d(8))), model[0].weight).change == 0


def test_nothing_is_different_afterwards() -> None:
    model = network(nn.BatchNorm2d(8))
    model(torch.randn(6, 4, 12, 12))
    call, weight = called(model), model[0].weight
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    version = weight._version
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    scale_response(call, weight)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert weight._version == version
    assert not any(module.training for module in model.modules())
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002
    # the control: what the test puts back would have moved
    model.train()(torch.randn(6, 4, 12, 12))
    assert not all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1, bias=False)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 8:
            raise RuntimeError("only eight times\nand not again")
        # standardized by hand, so that the graph shows no norm
        y = self.conv(x)
        return torch.tanh((y - y.mean((0, 2, 3), True)) / y.std((0, 2, 3), keepdim=True))


def test_the_weight_comes_back_even_if_the_model_raises() -> None:
    model = Raises()
    kept = model.conv.weight.detach().clone()
    model.calls = 7
    with pytest.raises(RuntimeError, match="only eight times"):
        scale_response(called(model), model.conv.weight)
    assert torch.equal(kept, model.conv.weight)


def test_a_test_that_fails_leaves_the_tie_to_the_gradient_and_says_so() -> None:
    model = Raises()
    (verdict,) = train(model).verdicts()
    assert verdict.scale_invariant is True
    assert verdict.functional_change is None
    assert verdict.reason.endswith("(the functional test failed: RuntimeError: only eight times)")


def test_a_norm_made_by_hand_is_confirmed_by_the_function() -> None:
    model = Raises()
    model.calls = -100
    (verdict,) = train(model).verdicts()
    assert verdict.scale_invariant is True
    assert verdict.reason == "its gradient is tangential, though no norm was found behind it"
    assert verdict.functional_change is not None
    assert verdict.functional_change < OUTPUT_LIMIT


class AlmostNothingAdded(nn.Module):
    """What is added is as good as nothing; so is what this weight does to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1, bias=False)
        self.scale = nn.Parameter(torch.tensor(1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * torch.tanh(self.conv(x))


def test_a_weight_on_which_the_output_hardly_depends_passes_nothing() -> None:
    model = AlmostNothingAdded()
    response = scale_response(called(model), model.conv.weight)
    assert response.change < OUTPUT_LIMIT
    assert response.invariant is None


@pytest.mark.parametrize("size", [1e-2, 1.0])
def test_a_weight_small_against_eps_is_told_apart_from_a_normalized_one(size: float) -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 2, 3))
    model = nn.Sequential(*layers)
    with torch.no_grad():
        model[0].weight.mul_(size)
    verdict = train(model, lr=0.0).verdicts()[0]
    assert verdict.scale_invariant is (size == 1)
    assert verdict.settled is (size == 1)
    assert ("eps is large beside it" in verdict.reason) is (size != 1)
    assert verdict.statistic is not None
    if size != 1:
        assert verdict.statistic > 1e-4
        assert verdict.functional_change is not None
        assert verdict.functional_change > 1e-2


def test_gradients_of_zero_are_not_asked_about() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3))
    verdict = observe(model, loss=lambda out: (out * 0).sum())["0.weight"]
    assert (verdict.scale_invariant, verdict.functional_change) == (None, None)


class Losses(nn.Module):
    """Returns what a detector returns: losses in lists, and what is no loss."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network(nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> dict[str, Tensor | list[Tensor]]:
        out = self.body(x)
        acc = out.flatten().argmax()[None].float() * self.body[0].weight.abs().max()
        return {
            "loss_a": [bounded(out), out.square().mean()],
            "loss_b": out.abs().mean(),
            "acc": acc,
        }


def test_several_losses_are_held_against_their_own_limit() -> None:
    model = Losses()
    assert scale_response(called(model), model.body[0].weight).limit == LOSSES_LIMIT
    assert scale_response(called(model), model.body[0].weight).invariant is True
    assert scale_response(called(model), model.body[7].weight).invariant is False


def test_arguments_keep_no_history_and_may_be_spoilt_by_the_model() -> None:
    class Spoils(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1, bias=False)

        def forward(self, x: Tensor, more: dict[str, list[Tensor]]) -> Tensor:
            return torch.tanh(self.conv(x.mul_(2)) + more["z"].pop())

    model, x = Spoils(), torch.randn(2, 4, 3, 3)
    history = (x * torch.ones((), requires_grad=True)).clone()
    call = ForwardCall.of(model, (x,), {"more": {"z": [history]}})
    assert not call.kwargs["more"]["z"][0].requires_grad
    assert scale_response(call, model.conv.weight).invariant is False
    assert len(call.kwargs["more"]["z"]) == 1


def test_an_output_without_numbers_is_an_error() -> None:
    with pytest.raises(ValueError, match="no floating-point tensor"):
        scale_response(ForwardCall.of(nn.Flatten(), (torch.ones(2, 2).long(),), {}), torch.ones(2))


def test_a_response_is_conclusive_only_where_the_output_depends_on_the_weight() -> None:
    assert ScaleResponse(1e-6, 1.0, 1e-4).invariant is True
    assert ScaleResponse(1e-3, 1e-3, 1e-4).invariant is False
    assert ScaleResponse(5e-5, 2e-4, 1e-4).invariant is None


class MomentumEncoder(nn.Module):
    """Changes parameters and replaces a buffer while it runs forward, as MoCo and BYOL do."""

    def __init__(self, through_data: bool) -> None:
        super().__init__()
        self.query, self.key = network(nn.BatchNorm2d(8)), network(nn.BatchNorm2d(8))
        self.key.requires_grad_(False)
        self.register_buffer("seen", torch.zeros(()))
        self.through_data = through_data

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + 1
        with torch.no_grad():
            for q, k in zip(self.query.parameters(), self.key.parameters(), strict=True):
                if self.through_data:
                    k.data = 0.9 * k.data + 0.1 * q.data.abs()
                else:
                    k.mul_(0.9).add_(q.abs(), alpha=0.1)
        return self.query(x) * self.key(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("through_data", [False, True])
def test_a_forward_that_changes_parameters_is_told_and_leaves_no_trace(through_data: bool) -> None:
    model = MomentumEncoder(through_data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffer, places = model.seen, [p.data_ptr() for p in model.parameters()]
    with pytest.raises(ValueError, match="the forward changes parameters"):
        scale_response(called(model), model.query[0].weight)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.seen is buffer
    assert places == [p.data_ptr() for p in model.parameters()]
    # the control: a forward does change them
    model(called(model).args[0])
    assert not torch.equal(before["key.0.weight"], model.key[0].weight)


class Queue(nn.Module):
    """Its answer depends on a buffer that each call moves on."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network(nn.BatchNorm2d(8))
        self.register_buffer("turn", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        self.turn += 1
        return self.body(x) * self.turn


def test_every_call_finds_the_same_buffers() -> None:
    model = Queue()
    assert scale_response(called(model), model.body[0].weight).change < OUTPUT_LIMIT
    assert model.turn == 1


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_code_runs_uncompiled(whole: bool) -> None:
    """As a module of its own, or as a forward that was replaced."""
    compiled_calls = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            compiled_calls.append(graph)
            return graph.forward(*args)

        return run

    model = network(nn.BatchNorm2d(8))
    runner: nn.Module = model
    if whole:
        runner = torch.compile(model, backend=backend)
    else:
        model.forward = torch.compile(model.forward, backend=backend)
    call = called(runner)
    runner(*call.args)
    assert len(compiled_calls) == 1  # the control
    if whole or hasattr(torch.compiler, "set_stance"):
        assert scale_response(call, model[0].weight).invariant is True
        assert len(compiled_calls) == 1
