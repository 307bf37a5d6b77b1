"""Verdicts on networks whose answer is known by construction."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torchvision
from torch import Tensor, nn

from smd_hooks.measure import ScaleInvarianceObserver, invariance, radial_statistic
from smd_hooks.measure.invariance import BATCHES, FUNCTIONAL_TESTS, PATIENCE

from .host_reads import NoHostRead
from .observing import Joined, bounded, observe, train


class Residual(nn.Module):
    """A conv that a norm follows, and one that is summed with its input first."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.summed = nn.Conv2d(4, 4, 1)
        self.after_sum = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.after_sum(x + self.summed(torch.relu(self.norm(self.inside(x)))))


def test_convs_before_a_norm_are_invariant_and_a_summed_one_is_not() -> None:
    head = (nn.Flatten(), nn.Linear(4 * 144, 3))
    verdicts = observe(nn.Sequential(nn.Conv2d(4, 4, 1), Residual(), *head))
    inside = verdicts["1.inside.weight"]
    assert inside.scale_invariant is True
    assert inside.statistic is not None
    assert inside.statistic < 3e-6
    assert inside.reason == "normalized by 1.norm"
    assert inside.norms == ("1.norm",)
    assert verdicts["1.summed.weight"].scale_invariant is False
    assert "a sum with something else" in verdicts["1.summed.weight"].reason
    assert verdicts["3.weight"].scale_invariant is False
    assert verdicts["1.norm.weight"].reason == "gain or bias, not a weight matrix"


@pytest.mark.parametrize(
    ("norm", "invariant"),
    [
        (nn.BatchNorm2d(8), True),
        (nn.GroupNorm(2, 8), True),
        (nn.InstanceNorm2d(8), True),
        (nn.Identity(), False),
        (nn.Sigmoid(), False),
    ],
)
def test_every_norm_makes_its_conv_invariant(norm: nn.Module, invariant: bool) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), norm, nn.ReLU(), nn.Conv2d(8, 2, 3))
    verdict = observe(model)["0.weight"]
    assert verdict.scale_invariant is invariant
    assert ("normalized" in verdict.reason) is invariant


@pytest.mark.parametrize(
    "between",
    [nn.ReLU(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.LeakyReLU(0.1), nn.Dropout(0.1)],
)
def test_positively_homogeneous_operations_may_stand_between(between: nn.Module) -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, bias=False), between, nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 2, 3)
    )
    verdict = observe(model)["0.weight"]
    assert (verdict.scale_invariant, verdict.reason) == (True, "normalized by 2")


def test_a_bias_that_the_norm_cancels_does_no_harm() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 2, 3))
    assert observe(model)["0.weight"].scale_invariant is True


def test_a_norm_in_eval_mode_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 2, 3))
    verdict = observe(model, prepare=lambda m: m[1].eval())["0.weight"]
    assert verdict.scale_invariant is False
    assert "BatchNorm is in eval mode" in verdict.reason
    assert verdict.norms == ()


def test_a_frozen_affine_norm_shifts() -> None:
    norm = torchvision.ops.FrozenBatchNorm2d(8)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), norm, nn.Tanh(), nn.Conv2d(8, 2, 3))
    verdict = observe(model)["0.weight"]
    assert verdict.scale_invariant is False
    assert "frozen affine norm" in verdict.reason


def test_frozen_and_forgotten_weights() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3))
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model[0].parameters(), lr=1e-3)
    observer = ScaleInvarianceObserver(model, optimizer)
    verdicts = {v.parameter: v for v in observer.verdicts()}
    assert verdicts["0.weight"].reason == "frozen (requires_grad=False)"
    assert verdicts["2.weight"].reason == "not handed to the optimizer"


def test_a_gradient_of_zero_is_unknown_not_invariant() -> None:
    """A zero-initialised last gain lets nothing through to the weights before it."""
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3))
    verdict = observe(model, loss=lambda out: (out * 0).sum(), steps=PATIENCE)["0.weight"]
    assert verdict.scale_invariant is None
    assert "zero in every batch" in verdict.reason


def test_observing_ends_by_itself() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    observer = ScaleInvarianceObserver(model, optimizer)
    for step in range(BATCHES):
        assert observer.done is False, step
        optimizer.zero_grad()
        model(torch.randn(2, 4, 6, 6)).cos().sum().backward()
        optimizer.step()
    assert observer.done is True


def test_a_whole_torchvision_network() -> None:
    model = torchvision.models.resnet18(num_classes=5)
    model.conv1 = nn.Conv2d(4, 64, 7, stride=2, padding=3, bias=False)
    verdicts = observe(model, size=64)
    matrices = [v for v in verdicts.values() if v.is_matrix]
    assert {v.parameter for v in matrices if v.scale_invariant is not True} == {"fc.weight"}
    assert "the loss or the model's output" in verdicts["fc.weight"].reason
    assert verdicts["layer2.0.downsample.0.weight"].norms == ("layer2.0.downsample.1",)


def test_a_layer_norm_normalizes_the_whole_matrix() -> None:
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(4 * 36, 16, bias=False),
        nn.LayerNorm(16),
        nn.Tanh(),
        nn.Linear(16, 2),
    )
    verdicts = observe(model, size=6)
    assert verdicts["1.weight"].scale_invariant is True
    assert verdicts["4.weight"].scale_invariant is False


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ((nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8)), "scale-invariant only jointly with its bias"),
        (
            (nn.Conv2d(4, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)),
            "scale-invariant only jointly with its bias",
        ),
        ((nn.Conv2d(4, 8, 3, bias=False), nn.ReLU6(), nn.BatchNorm2d(8)), "Hardtanh"),
    ],
)
def test_what_certainly_ends_invariance_counts_before_gradients_show_it(
    layers: tuple[nn.Module, ...], reason: str
) -> None:
    """With a bias that starts at 0, or no saturated unit yet, early gradients are tangential."""

    def small(model: nn.Module) -> None:
        with torch.no_grad():
            model[0].weight.mul_(0.1)
            if model[0].bias is not None:
                model[0].bias.zero_()

    verdict = observe(nn.Sequential(*layers, nn.Tanh(), nn.Conv2d(8, 2, 3)), prepare=small)
    assert verdict["0.weight"].scale_invariant is False
    assert reason in verdict["0.weight"].reason


def test_a_bias_free_pointwise_conv_may_stand_between() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.Conv2d(4, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.Tanh(),
        nn.Conv2d(8, 2, 3),
    )
    verdicts = observe(model)
    for name in ("0.weight", "1.weight"):
        assert (verdicts[name].scale_invariant, verdicts[name].norms) == (True, ("2",))


def test_a_gate_is_named_as_a_product() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1, bias=False)
            self.gate = nn.Conv2d(4, 4, 1)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x) * torch.sigmoid(self.gate(x)))

    verdicts = observe(nn.Sequential(Gated(), nn.Tanh(), nn.Conv2d(4, 2, 3)))
    assert "Sigmoid" in verdicts["0.gate.weight"].reason or "sigmoid" in (
        verdicts["0.gate.weight"].reason
    )
    assert verdicts["0.gate.weight"].scale_invariant is False


def test_weights_that_one_norm_joins_are_not_invariant_alone() -> None:
    verdicts = observe(nn.Sequential(Joined(), nn.Tanh(), nn.Conv2d(4, 2, 3)))
    for name, other in (("left", "right"), ("right", "left")):
        verdict = verdicts[f"0.{name}.weight"]
        assert verdict.scale_invariant is False
        assert verdict.reason == f"scale-invariant only jointly with 0.{other}.weight"


# --------------------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("layers", "per_filter"),
    [
        ((nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8)), True),
        ((nn.Conv2d(4, 8, 3, bias=False), nn.InstanceNorm2d(8)), True),
        ((nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 1)), True),
        ((nn.Conv2d(4, 8, 3, bias=False), nn.GroupNorm(8, 8)), True),
        ((nn.Conv2d(4, 8, 3, bias=False), nn.GroupNorm(2, 8)), False),
        ((nn.Conv2d(4, 8, 3, bias=False), nn.GroupNorm(1, 8)), False),
        ((nn.Conv2d(4, 8, 3, bias=False), nn.LayerNorm([8, 10, 10])), False),
    ],
    ids=["BN", "IN", "depthwise", "GN of 1", "GN of 4", "GN of all", "LN"],
)
def test_a_filter_is_a_unit_where_its_norm_looks_at_it_alone(
    layers: tuple[nn.Module, ...], per_filter: bool
) -> None:
    verdict = observe(nn.Sequential(*layers, nn.Tanh(), nn.Conv2d(8, 2, 3)))["0.weight"]
    assert verdict.scale_invariant is True
    assert verdict.per_filter is per_filter
    assert verdict.filter_statistic is not None
    assert (verdict.filter_statistic < 1e-4) is per_filter
    assert (verdict.filter_statistic > 0.1) is not per_filter


def test_a_classifier_has_no_invariant_unit() -> None:
    verdict = observe(nn.Sequential(nn.Flatten(), nn.Linear(144, 3)), size=6)["1.weight"]
    assert (verdict.scale_invariant, verdict.per_filter) == (False, False)
    assert verdict.statistic is not None
    assert verdict.statistic > 0.1
    assert "the loss or the model's output" in verdict.reason


@pytest.mark.parametrize("size", [1, 3])
def test_a_depthwise_conv_is_a_matrix_unless_it_is_a_gain(size: int) -> None:
    """Rows of one element are no units: their z² is always 1."""
    layers = (nn.Conv2d(4, 4, size, groups=4, bias=False), nn.BatchNorm2d(4))
    verdict = observe(nn.Sequential(*layers, nn.Tanh(), nn.Conv2d(4, 2, 3)))["0.weight"]
    assert verdict.is_matrix is (size == 3)
    assert verdict.scale_invariant is (size == 3)
    assert verdict.per_filter is (True if size == 3 else None)
    assert ("gain or bias" in verdict.reason) is (size == 1)


class Tokens(nn.Module):
    """What a vision transformer adds and multiplies, in the shapes in which it does."""

    def __init__(self) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, 4))
        self.position = nn.Parameter(torch.randn(1, 145, 4))
        self.layer_scale = nn.Parameter(torch.randn(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        patches = (x * self.layer_scale).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.class_token.expand(len(x), -1, -1), patches), 1)
        return (tokens + self.position).tanh()


def test_gains_and_biases_in_more_dimensions_are_no_matrices() -> None:
    verdicts = observe(Tokens())
    assert [name for name, v in verdicts.items() if v.is_matrix] == ["position"]
    assert "gain or bias" in verdicts["class_token"].reason
    assert "gain or bias" in verdicts["layer_scale"].reason


def test_the_fused_statistic_is_the_readable_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.GroupNorm(2, 8), nn.Conv2d(8, 2, 3))
    weight = model[0].weight
    tensors, rows = [], []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    observer = ScaleInvarianceObserver(model, optimizer)
    for _ in range(BATCHES):
        optimizer.zero_grad()
        bounded(model(torch.randn(2, 4, 6, 6))).backward()
        assert weight.grad is not None
        tensors.append(radial_statistic(weight, weight.grad).item())
        rows.append([radial_statistic(weight[i], weight.grad[i]).item() for i in range(8)])
        optimizer.step()
    verdict = observer.verdicts()[0]
    assert verdict.statistic == pytest.approx(sum(tensors) / BATCHES, rel=1e-9)
    means = [sum(column) / BATCHES for column in zip(*rows, strict=True)]
    assert verdict.filter_statistic == pytest.approx(max(means), rel=1e-9)


def test_a_squeeze_and_excitation_gate_is_not_invariant() -> None:
    net = torchvision.ops.SqueezeExcitation(8, 4)
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), net, nn.Conv2d(8, 2, 3)
    )
    verdicts = observe(model)
    assert verdicts["0.weight"].scale_invariant is True
    for name in ("2.fc1.weight", "2.fc2.weight"):
        assert verdicts[name].scale_invariant is False
    assert "a sigmoid" in verdicts["2.fc2.weight"].reason


# ------------------------------------------------------------------------- training loops


def test_watching_reads_nothing_back_from_the_device() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    observer = ScaleInvarianceObserver(model, optimizer)
    while not observer.done:
        optimizer.zero_grad()
        bounded(model(torch.randn(2, 4, 6, 6))).backward()
        with NoHostRead():
            optimizer.step()
    with pytest.raises(AssertionError, match="read on the host"), NoHostRead():
        observer.verdicts()


class Gan(nn.Module):
    """Its own forward is never called, and its optimizers take turns."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        )
        self.discriminator = nn.Sequential(
            nn.Conv2d(4, 8, 3, bias=False), nn.GroupNorm(2, 8), nn.Tanh(), nn.Conv2d(8, 1, 3)
        )

    def train_step(self, optimizers: list[torch.optim.Optimizer]) -> None:
        for player, optimizer in zip((self.discriminator, self.generator), optimizers, strict=True):
            for other in self.children():
                other.requires_grad_(player is other)
            optimizer.zero_grad()
            bounded(self.discriminator(self.generator(torch.randn(4, 4, 8, 8)))).backward()
            optimizer.step()


def test_the_parts_of_a_gan_are_each_seen_with_their_own_optimizer() -> None:
    model = Gan()
    parts = (model.discriminator, model.generator)
    optimizers = [torch.optim.Adam(part.parameters(), lr=1e-3) for part in parts]
    observer = ScaleInvarianceObserver(model, optimizers)
    while not observer.done:
        model.train_step(optimizers)
    verdicts = {v.parameter: v for v in observer.verdicts()}
    expected = {
        "generator.0.weight": (True, True, "normalized by generator.1"),
        "discriminator.0.weight": (True, False, "normalized by discriminator.1"),
    }
    for name, answer in expected.items():
        verdict = verdicts[name]
        assert (verdict.scale_invariant, verdict.per_filter, verdict.reason) == answer
        assert verdict.batches >= BATCHES
    assert verdicts["generator.2.weight"].scale_invariant is False
    assert verdicts["discriminator.3.weight"].scale_invariant is False


def test_an_optimizer_that_never_steps_holds_nobody_up() -> None:
    model = Gan()
    parts = (model.discriminator, model.generator)
    optimizers = [torch.optim.Adam(part.parameters(), lr=1e-3) for part in parts]
    observer = ScaleInvarianceObserver(model, optimizers)
    for _ in range(2 * PATIENCE):
        assert observer.done is False
        optimizers[0].zero_grad()
        bounded(model.discriminator(torch.randn(2, 4, 8, 8))).backward()
        optimizers[0].step()
    assert observer.done is True
    verdicts = {v.parameter: v for v in observer.verdicts()}
    assert verdicts["discriminator.0.weight"].scale_invariant is True
    assert verdicts["generator.0.weight"].scale_invariant is None


class Autocast(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x)


def test_autocast_leaves_the_verdicts_as_they_are() -> None:
    torch.manual_seed(0)
    model = Autocast(
        nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 2, 3)
    )
    verdicts = {v.parameter: v for v in train(model).verdicts()}
    first = verdicts["0.weight"]
    assert (first.scale_invariant, first.per_filter) == (True, True)
    assert first.statistic is not None
    assert 1e-7 < first.statistic < 1e-4
    assert verdicts["3.weight"].scale_invariant is False


def test_a_graph_that_cannot_be_read_does_not_stop_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(graph: object) -> None:
        raise KeyError("no such node")

    monkeypatch.setattr(invariance, "destinations", broken)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Tanh())
    with pytest.warns(UserWarning, match="KeyError: 'no such node'") as caught:
        verdict = observe(model)["0.weight"]
    assert len(caught) == 1
    assert (verdict.scale_invariant, verdict.norms) == (True, ())


def test_a_scripted_model_is_judged_by_its_gradients() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Tanh())
    model = torch.jit.script(nn.Sequential(*model, nn.Conv2d(8, 2, 3)))
    with pytest.warns(UserWarning, match="not supported on ScriptModules"):
        verdicts = observe(model)
    assert verdicts["0.weight"].scale_invariant is True
    assert verdicts["3.weight"].scale_invariant is False


def test_a_watched_model_is_saved_and_copied_without_its_watcher() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Tanh())
    observer = ScaleInvarianceObserver(model, torch.optim.SGD(model.parameters(), lr=0.1))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    x = torch.randn(2, 4, 6, 6)
    for twin in (torch.load(file, weights_only=False), copy.deepcopy(model)):
        twin(x)
        assert not observer._calls
    model(x)
    assert list(observer._calls) == [model]  # the control


class SmallAgainstEps(nn.Module):
    """A chain of more convs than the function is asked about, each of them a tie."""

    def __init__(self) -> None:
        super().__init__()
        layers = [
            layer
            for _ in range(FUNCTIONAL_TESTS + 2)
            for layer in (nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4, eps=1.0), nn.ReLU())
        ]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


def test_the_function_is_asked_about_a_few_ties_only() -> None:
    verdicts = [v for v in observe(SmallAgainstEps()).values() if v.is_matrix]
    asked = [v.functional_change is not None for v in verdicts]
    assert asked == [True] * FUNCTIONAL_TESTS + [False] * 2
    assert "its gradient's word" not in verdicts[0].reason
    assert all("its gradient's word: the function was asked" in v.reason for v in verdicts[-2:])
    assert not any(v.scale_invariant for v in verdicts)


def test_a_compiled_model_is_judged_by_its_gradients() -> None:
    layers = (nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 2, 3))
    model = torch.compile(nn.Sequential(*layers), backend="aot_eager")
    verdicts = observe(model)
    first, last = verdicts["_orig_mod.0.weight"], verdicts["_orig_mod.3.weight"]
    assert (first.scale_invariant, last.scale_invariant) == (True, False)
    assert first.functional_change is None
    assert "compiled code" in first.reason
    assert "compiled code" in last.reason
