"""Closures, scaling, accumulation, clipping, compilation, and rates that are tensors."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smd_hooks.optim import LionAR
from tests.measure.host_reads import NoHostRead
from tests.optim.cases import CASES, PLAIN, Case, Gradients, distance, made, mixed_weights, name_of

each = pytest.mark.parametrize("case", PLAIN, ids=name_of)


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    """Norms of single examples only: how a batch is cut does not change the gradient."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.GroupNorm(2, 6),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(6 * 16, 5),
    ).to(dtype)


def batch(t: int, dtype: torch.dtype = torch.float64, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(t)
    images = torch.randn(size, 3, 6, 6, generator=generator, dtype=torch.float64)
    return images.to(dtype), torch.randint(5, (size,), generator=generator)


def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(images), labels)


def farthest(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(distance(a, b) for a, b in pairs)


def plain_run(case: Case, steps: int = 8, dtype: torch.dtype = torch.float64) -> nn.Module:
    model = network(dtype)
    optimizer = case.build(model.parameters())
    for t in range(steps):
        optimizer.zero_grad()
        loss_of(model, *batch(t, dtype)).backward()
        optimizer.step()
    return model


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All weights and all of the optimizer's state."""
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    return [*model.parameters(), *state]


# ------------------------------------------------------------------------------ the loop


@each
def test_a_closure_is_called_with_gradients_on_and_its_loss_returned(case: Case) -> None:
    model = network()
    optimizer = case.build(model.parameters())
    for t in range(8):

        def closure(t: int = t) -> Tensor:
            assert torch.is_grad_enabled()
            optimizer.zero_grad()
            loss = loss_of(model, *batch(t))
            loss.backward()
            return loss

        assert float(optimizer.step(closure).detach()) > 0
    assert farthest(model, plain_run(case)) == 0
    assert float(optimizer.reference_step(closure).detach()) > 0


@each
def test_accumulated_micro_batches_are_one_big_batch(case: Case) -> None:
    model = network()
    optimizer = case.build(model.parameters())
    for t in range(8):
        optimizer.zero_grad()
        images, labels = batch(t)
        for part, its_labels in zip(images.chunk(4), labels.chunk(4), strict=True):
            (loss_of(model, part, its_labels) / 4).backward()
        optimizer.step()
    assert farthest(model, plain_run(case)) < 1e-10


@each
def test_a_scaler_that_skips_steps_leaves_everything_as_it_was(case: Case) -> None:
    model = network(torch.float32)
    optimizer = case.build(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=100)
    for t in range(8):
        for overflows in (True, False) if t in (0, 3) else (False,):
            before = copy.deepcopy(everything(model, optimizer))
            optimizer.zero_grad()
            scaler.scale(loss_of(model, *batch(t, torch.float32))).backward()
            if overflows:
                next(model.parameters()).grad[0, 0, 0, 0] = float("inf")  # type: ignore[index]
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            after = everything(model, optimizer)
            same = len(before) == len(after) and all(map(torch.equal, before, after))
            assert same is overflows
    # powers of two scale without rounding
    assert farthest(model, plain_run(case, dtype=torch.float32)) == 0


@each
def test_clipped_gradients_are_the_ones_stepped_by(case: Case) -> None:
    model, other = network(), network()
    clipped, by_hand = case.build(model.parameters()), case.build(other.parameters())
    for t in range(5):
        for net, optimizer in ((model, clipped), (other, by_hand)):
            optimizer.zero_grad()
            loss_of(net, *batch(t)).backward()
            if optimizer is clipped:
                nn.utils.clip_grad_norm_(net.parameters(), 0.01)
            else:
                grads = [p.grad for p in net.parameters() if p.grad is not None]
                norm = torch.stack([g.norm() for g in grads]).norm()
                for g in grads:
                    g.mul_(0.01 / (norm + 1e-6))
            optimizer.step()
    assert farthest(model, other) < 1e-12


@each
def test_training_in_autocast_keeps_float32_weights_without_a_warning(
    case: Case, recwarn: pytest.WarningsRecorder
) -> None:
    model = network(torch.float32)
    optimizer = case.build(model.parameters(), lr=1e-4)
    for t in range(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, *batch(t, torch.float32))
        loss.backward()
        optimizer.step()
    assert not [w for w in recwarn if "rounding" in str(w.message)]
    assert all(p.isfinite().all() for p in model.parameters())


def test_step_hooks_of_torch_are_called_around_the_fast_step() -> None:
    w = made(3, 4)
    optimizer = LionAR([w], 0.1, weight_decay=0.1)
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    w.grad = torch.ones_like(w)
    optimizer.step()
    assert seen == ["before", "after"]


# ----------------------------------------------------------------------------- tensor rates


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_tensor_lr_steps_alike_and_is_never_read_on_the_host(case: Case) -> None:
    plain, others = mixed_weights(), mixed_weights()
    one = case.build(plain)
    two = case.build(others, lr=torch.tensor(1e-2, dtype=torch.float64))
    gradients = Gradients()
    for t in range(4):
        gradients.give(plain, others)
        one.param_groups[0]["lr"] = 1e-2 / (t + 1)
        two.param_groups[0]["lr"].fill_(1e-2 / (t + 1))
        one.step()
        with NoHostRead():
            two.step()
    for a, b in zip(plain, others, strict=True):
        assert distance(a, b) < 1e-6


@each
def test_plain_settings_are_not_read_from_tensors_either(case: Case) -> None:
    weights = mixed_weights()
    optimizer = case.build(weights)
    gradients = Gradients()
    for _ in range(3):
        gradients.give(weights)
        with NoHostRead():
            optimizer.step()


def test_control_the_reference_reads_on_the_host() -> None:
    weights = mixed_weights()
    optimizer = PLAIN[0].build(weights)
    Gradients().give(weights)
    with NoHostRead(), pytest.raises(AssertionError, match="read on the host"):
        optimizer.reference_step()


@each
def test_a_tensor_weight_decay_steps_alike(case: Case) -> None:
    plain, others = mixed_weights(), mixed_weights()
    one, two = case.build(plain), case.build(others)
    two.param_groups[0]["weight_decay"] = torch.tensor(0.1, dtype=torch.float64)
    gradients = Gradients()
    for _ in range(3):
        gradients.give(plain, others)
        one.step()
        two.step()
    for a, b in zip(plain, others, strict=True):
        assert distance(a, b) < 1e-6


# ------------------------------------------------------------------------------- compiling


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
@pytest.mark.parametrize("whole", [True, False], ids=["training step", "optimizer.step"])
@each
def test_compiled_steps_are_eager_ones(case: Case, whole: bool) -> None:
    torch._dynamo.reset()
    model = network()
    optimizer = case.build(model.parameters())

    def train_step(t: Any) -> None:
        loss_of(model, *t).backward()
        optimizer.step()
        optimizer.zero_grad()

    compiled = torch.compile(train_step if whole else optimizer.step, backend="aot_eager")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (t + 1))
    for t in range(4):
        if whole:
            compiled(batch(t))
        else:
            loss_of(model, *batch(t)).backward()
            compiled()
            optimizer.zero_grad()
        schedule.step()
    eager = network()
    optimizer = case.build(eager.parameters())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (t + 1))
    for t in range(4):
        optimizer.zero_grad()
        loss_of(eager, *batch(t)).backward()
        optimizer.step()
        schedule.step()
    assert farthest(model, eager) < 1e-12
