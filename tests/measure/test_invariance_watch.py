"""The watch: it looks again when, and only when, the answer may have changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from smd_hooks.measure import invariance_watch
from smd_hooks.measure.invariance import BATCHES, ScaleInvarianceObserver
from smd_hooks.measure.invariance_watch import Findings, InvarianceWatch
from smd_hooks.measure.verdict import Verdict

from .observing import Joined, bounded
from .test_invariance import Gan


class Loop:
    """A training loop that polls after every step, as the hook does."""

    def __init__(self, model: nn.Module, lr: float = 1e-3, first_step: int = 0) -> None:
        torch.manual_seed(0)
        self.model = model.train()
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        self.watch = InvarianceWatch(model, self.optimizer, first_step)
        self.findings: list[tuple[int, Findings]] = []

    def run(self, steps: int, before: Callable[[int], object] = lambda step: None) -> Loop:
        for step in range(steps):
            before(step)
            self.optimizer.zero_grad()
            bounded(self.model(torch.randn(4, 4, 8, 8))).backward()
            self.optimizer.step()
            if (found := self.watch.poll()) is not None:
                self.findings.append((self.watch.step, found))
        return self

    def close(self) -> Loop:
        self.watch.detach()
        while (found := self.watch.poll(final=True)) is not None:
            self.findings.append((self.watch.step, found))
        return self

    def answers(self, name: str) -> list[tuple[int, bool | None]]:
        return [
            (found.from_step, verdict(found, name).scale_invariant) for _, found in self.findings
        ]


def verdict(findings: Findings, name: str) -> Verdict:
    return next(v for v in findings.verdicts if v.parameter == name)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    first = (nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    # a ReLU behind a gain of 0 would let nothing through for ever
    second = (nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Softplus())
    return nn.Sequential(*first, *second, nn.Conv2d(8, 2, 3))


@pytest.fixture
def observers(monkeypatch: pytest.MonkeyPatch) -> list[ScaleInvarianceObserver]:
    """Every observer that a watch begins."""
    begun: list[ScaleInvarianceObserver] = []

    class Counted(ScaleInvarianceObserver):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            begun.append(self)

    monkeypatch.setattr(invariance_watch, "ScaleInvarianceObserver", Counted)
    return begun


def test_where_nothing_changes_it_looks_once(observers: list[ScaleInvarianceObserver]) -> None:
    loop = Loop(network(), first_step=100).run(5 * BATCHES)
    assert len(observers) == 1
    assert [step for step, _ in loop.findings] == [100 + BATCHES]
    assert loop.answers("0.weight") == [(100, True)]
    assert loop.close().answers("0.weight") == [(100, True)]
    assert not loop.optimizer._optimizer_step_pre_hooks
    assert not loop.optimizer._optimizer_step_post_hooks
    assert not loop.model._forward_hooks


def to_eval(model: nn.Sequential) -> None:
    model[1].eval()


def freeze(model: nn.Sequential) -> None:
    model[0].requires_grad_(False)


def freeze_stage(model: nn.Sequential) -> None:
    to_eval(model)
    freeze(model)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (to_eval, "its BatchNorm is in eval mode (norm_eval or frozen statistics)"),
        (freeze, "frozen (requires_grad=False)"),
        (freeze_stage, "frozen (requires_grad=False)"),
    ],
)
def test_a_backbone_frozen_mid_run(
    change: Callable[[nn.Sequential], None], reason: str, observers: list[ScaleInvarianceObserver]
) -> None:
    loop = Loop(network())
    loop.run(40, lambda step: change(loop.model) if step == 20 else None)  # type: ignore[arg-type]
    assert len(observers) == 2
    assert loop.answers("0.weight") == [(0, True), (20, False)]
    assert loop.answers("3.weight") == [(0, True), (20, True)]
    last = verdict(loop.findings[-1][1], "0.weight")
    assert last.reason == reason
    assert loop.findings[-1][0] <= 20 + 2 + BATCHES
    # and back again
    loop.run(20, lambda step: loop.model.train().requires_grad_(True))
    assert loop.answers("0.weight") == [(0, True), (20, False), (40, True)]


def test_validation_in_between_is_no_change(observers: list[ScaleInvarianceObserver]) -> None:
    loop = Loop(network())

    def validate(step: int) -> None:
        loop.model.eval()
        with torch.no_grad():
            loop.model(torch.randn(4, 4, 8, 8))
        loop.model.train()

    loop.run(3 * BATCHES, validate)
    assert len(observers) == 1
    assert loop.answers("0.weight") == [(0, True)]


def test_a_model_that_was_built_in_eval_mode_is_observed_from_the_start(
    observers: list[ScaleInvarianceObserver],
) -> None:
    """Some frameworks switch to train mode after the hooks are attached."""
    loop = Loop(network())
    loop.watch.detach()
    loop.watch = InvarianceWatch(loop.model.eval(), loop.optimizer)
    loop.model.train()
    loop.run(2 * BATCHES)
    assert loop.answers("0.weight") == [(0, True)]


def test_a_flag_that_flips_at_every_step_starts_nothing(
    observers: list[ScaleInvarianceObserver],
) -> None:
    loop = Loop(network())
    loop.run(5 * BATCHES, lambda step: loop.model[6].train(step % 2 == 0))  # type: ignore[index]
    assert len(observers) == 1


def test_a_zero_initialized_gain_is_unknown_and_then_known() -> None:
    model = network()
    nn.init.zeros_(model[4].weight)  # type: ignore[arg-type]
    nn.init.zeros_(model[4].bias)  # type: ignore[arg-type]
    loop = Loop(model, lr=0.0)

    def warm_up(step: int) -> None:
        for group in loop.optimizer.param_groups:
            group["lr"] = 0.0 if step < 12 else 1e-2

    loop.run(5 * BATCHES, warm_up)
    assert loop.answers("0.weight") == [(0, None), (4 * BATCHES, True)]
    assert verdict(loop.findings[0][1], "0.weight").settled is False


def test_what_stays_unknown_is_looked_at_ever_more_rarely(
    observers: list[ScaleInvarianceObserver],
) -> None:
    model = network()
    for module in (model[4].weight, model[4].bias):
        nn.init.zeros_(module)  # type: ignore[arg-type]
    Loop(model, lr=0.0).run(20 * BATCHES)
    assert len(observers) == 3  # at 0, 4 and 16 lengths


def test_a_weight_small_against_eps_is_looked_at_again() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight.mul_(1e-2)  # type: ignore[union-attr, operator]
    loop = Loop(model, lr=0.0)

    def grow(step: int) -> None:
        if step == 20:
            with torch.no_grad():
                model[0].weight.mul_(1e2)  # type: ignore[union-attr, operator]

    loop.run(5 * BATCHES, grow)
    assert loop.answers("0.weight") == [(0, False), (4 * BATCHES, True)]


def test_parameters_added_later_are_found() -> None:
    model = network()
    loop = Loop(model)
    loop.watch.detach()
    loop.optimizer = torch.optim.SGD(model[3:].parameters(), lr=1e-3)
    loop.watch = InvarianceWatch(model, loop.optimizer)

    def unfreeze(step: int) -> None:
        if step == 12:
            loop.optimizer.add_param_group({"params": list(model[0].parameters())})

    loop.run(30, unfreeze)
    assert loop.answers("0.weight") == [(0, False), (12, True)]
    assert verdict(loop.findings[0][1], "0.weight").reason == "not handed to the optimizer"


def test_the_end_of_a_short_run_gives_what_was_seen() -> None:
    loop = Loop(network()).run(3)
    assert loop.findings == []
    loop.close()
    assert loop.answers("0.weight") == [(0, True)]
    assert verdict(loop.findings[0][1], "0.weight").batches == 3
    assert loop.watch.poll(final=True) is None
    assert Loop(network()).close().findings == []


def test_what_was_found_is_still_there_after_detaching() -> None:
    loop = Loop(network())
    loop.run(3)
    poll, loop.watch.poll = loop.watch.poll, lambda final=False: None  # type: ignore[method-assign]
    loop.run(BATCHES)
    loop.watch.detach()
    found = poll()
    assert found is not None
    assert verdict(found, "0.weight").scale_invariant is True
    assert poll() is None


def test_joint_groups_come_and_go_with_the_mode() -> None:
    loop = Loop(nn.Sequential(Joined(), nn.Tanh(), nn.Conv2d(4, 2, 3)))
    loop.run(40, lambda step: loop.model[0].norm.eval() if step == 15 else None)  # type: ignore[index]
    assert [(found.from_step, len(found.groups)) for _, found in loop.findings] == [(0, 1), (15, 0)]


def test_players_that_take_turns_are_one_mode(observers: list[ScaleInvarianceObserver]) -> None:
    """Each optimizer sees the other player frozen; that is no change of mode."""
    torch.manual_seed(0)
    model = Gan()
    parts = (model.discriminator, model.generator)
    optimizers = [torch.optim.Adam(part.parameters(), lr=1e-3) for part in parts]
    watch = InvarianceWatch(model, optimizers)
    found = []
    for _ in range(4 * BATCHES):
        model.train_step(optimizers)
        found += [f for f in [watch.poll()] if f is not None]
    assert len(observers) == 1
    (findings,) = found
    assert watch.step == 4 * BATCHES
    assert verdict(findings, "generator.0.weight").scale_invariant is True
    assert verdict(findings, "discriminator.0.weight").scale_invariant is True
