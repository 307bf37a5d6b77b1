"""What stands behind a weight, in words, on layers whose answer is known."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.convnext import CNBlockConfig

from smd_hooks.measure.autograd_graph import Graph
from smd_hooks.measure.structure import Destination, destinations

from .observing import train

SMALL_CONVNEXT = [CNBlockConfig(32, 64, 1), CNBlockConfig(64, None, 1)]


class HandmadeRMSNorm(nn.Module):
    """As language models write it: in float32, with the gain at the end."""

    def __init__(self, size: int, power: float = -0.5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.power = power

    def forward(self, x: Tensor) -> Tensor:
        x = x.double()
        variance = x.pow(2).mean(-1, keepdim=True) + 1e-6
        factor = torch.rsqrt(variance) if self.power == -0.5 else torch.sqrt(variance)
        return self.weight * (x * factor).float()


class DividedBySize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=-1)


class DividedByAnother(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.detach().norm(dim=-1, keepdim=True)


def behind(*layers: nn.Module) -> Destination:
    model = nn.Sequential(nn.Linear(6, 8, bias=False), *layers, nn.Tanh(), nn.Linear(8, 2))
    return destinations(Graph.of(model(torch.randn(4, 6)), model))["0.weight"]


@pytest.mark.parametrize(
    ("norm", "name"),
    [
        (nn.RMSNorm(8), "1"),
        (nn.RMSNorm(8, elementwise_affine=False), ""),
        (HandmadeRMSNorm(8), "1"),
        (DividedBySize(), ""),
        (nn.LayerNorm(8), "1"),
    ],
)
def test_norms_without_a_node_of_their_own_are_recognized(norm: nn.Module, name: str) -> None:
    found = behind(norm)
    assert found.normalized is True
    assert found.norms == ((name,) if name else ())
    assert found.reason == (f"normalized by {name}" if name else "normalized")


@pytest.mark.parametrize("norm", [HandmadeRMSNorm(8, power=0.5), nn.Softplus(), nn.Softmax(-1)])
def test_what_only_looks_like_one_is_none(norm: nn.Module) -> None:
    assert behind(norm).normalized is False


def test_a_size_that_has_no_gradient_does_not_normalize_the_gradient() -> None:
    assert behind(DividedByAnother()).normalized is False


def test_rms_norm_needs_the_bias_too() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.RMSNorm(8), nn.Tanh())
    found = destinations(Graph.of(model(torch.randn(4, 6)), model))["0.weight"]
    assert (found.certain, found.reason) == (True, "scale-invariant only jointly with its bias")


@pytest.mark.parametrize(
    ("normalize", "v", "g"),
    [
        (
            nn.utils.parametrizations.weight_norm,
            "0.parametrizations.weight.original1",
            "0.parametrizations.weight.original0",
        ),
        (nn.utils.weight_norm, "0.weight_v", "0.weight_g"),
    ],
)
def test_weight_norm_normalizes_each_row_of_v(normalize, v: str, g: str) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    model = nn.Sequential(normalize(nn.Conv2d(4, 8, 3)), nn.Tanh(), nn.Conv2d(8, 2, 3))
    verdicts = {verdict.parameter: verdict for verdict in train(model).verdicts()}
    assert (verdicts[v].scale_invariant, verdicts[v].per_filter) == (True, True)
    assert verdicts[v].reason == "normalized by its weight norm"
    assert verdicts[v].norms == (v.rpartition(".")[0],)
    assert verdicts[g].scale_invariant is False
    assert verdicts[g].is_matrix is False


class RaisedTo(nn.Module):
    """A norm by hand whose exponent is a tensor: one number, or one per feature."""

    def __init__(self, exponent: Tensor) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, x: Tensor) -> Tensor:
        return x * (x * x).mean(-1, keepdim=True) ** self.exponent


def test_exponents_may_be_tensors() -> None:
    assert behind(RaisedTo(torch.tensor(-0.5))).normalized is True
    assert behind(RaisedTo(torch.full((1,), -0.5))).normalized is True
    assert behind(RaisedTo(torch.full((8,), -0.5))).normalized is False


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.LayerNorm(8), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inside, x, use_reentrant=True)  # type: ignore[no-any-return]


class Branches(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], -1)[..., :8]


def test_what_cannot_be_looked_into_speaks_neither_for_nor_against() -> None:
    compiled = torch.compile(nn.Sequential(nn.LayerNorm(8), nn.Tanh()), backend="aot_eager")
    for hidden, words in ((Checkpointed(), "checkpointed block"), (compiled, "compiled code")):
        found = behind(hidden)
        assert (found.normalized, found.certain) == (None, False)
        assert words in found.reason
    assert behind(Branches(Checkpointed(), nn.LayerNorm(8))).normalized is None
    assert behind(Branches(Checkpointed(), nn.Softplus())).normalized is False
    assert behind(Branches(Checkpointed(), nn.Tanh())).certain is True


def test_attention_is_named_for_queries_and_keys() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    model = nn.Sequential(nn.Linear(8, 8), layer)
    verdicts = {v.parameter: v for v in train(model, shape=(4, 5, 8)).verdicts()}
    for name, phrase in {
        "1.self_attn.in_proj_weight": "an attention",
        "1.self_attn.out_proj.weight": "a sum with something else",
        "1.linear2.weight": "a sum with something else",
    }.items():
        assert verdicts[name].scale_invariant is False
        assert phrase in verdicts[name].reason


def test_queries_that_are_normalized_are_invariant_each_head_with_its_rows() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(8, 8, bias=False) for _ in range(4))
            self.q_norm, self.k_norm = nn.RMSNorm(8), nn.RMSNorm(8)
            self.norm = nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            q, k = self.q_norm(self.q(x)), self.k_norm(self.k(x))
            mixed = nn.functional.scaled_dot_product_attention(q, k, self.v(x))
            return self.norm(self.out(mixed)).tanh()

    torch.manual_seed(0)
    verdicts = {v.parameter: v for v in train(Attention(), shape=(4, 5, 8)).verdicts()}
    reasons = {"q": "q_norm", "k": "k_norm", "v": "norm", "out": "norm"}
    for name, norm in reasons.items():
        verdict = verdicts[f"{name}.weight"]
        assert (verdict.scale_invariant, verdict.per_filter) == (True, False)
        assert verdict.reason == f"normalized by {norm}"


def test_a_learned_scale_may_stand_between() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1, bias=False)
            self.scale = nn.Parameter(1 + torch.rand(4, 1, 1))
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x) * self.scale).tanh()

    verdicts = {v.parameter: v for v in train(Scaled()).verdicts()}
    assert verdicts["conv.weight"].reason == "normalized by norm"


@pytest.mark.parametrize(
    ("build", "size", "invariant", "phrases"),
    [
        (
            lambda: torchvision.models.mobilenet_v3_small(num_classes=3),
            *(64, "features.0.0.weight"),
            {
                "fc2": "a hard sigmoid",
                "features.4.block.2.fc1": "another weight",
                "classifier.0": "a hard swish",
            },
        ),
        (
            lambda: torchvision.models.ConvNeXt(SMALL_CONVNEXT, num_classes=3),
            *(32, None),
            {
                "features.1.0.block.0.weight": "only jointly with its bias",
                "features.1.0.block.3.weight": "a GELU",
                "features.1.0.block.5.weight": "a sum with something else",
            },
        ),
        (
            lambda: torchvision.models.VisionTransformer(32, 16, 2, 2, 32, 64, num_classes=3),
            *(32, None),
            {"in_proj": "an attention", "mlp.0": "a GELU", "mlp.3": "a sum", "conv_proj": "a sum"},
        ),
        (
            lambda: torchvision.models.SwinTransformer(
                [4, 4], 24, [2, 2], [2, 2], [4, 4], num_classes=3
            ),
            *(32, None),
            {"qkv": "an attention", "mlp.0": "a GELU", "mlp.3": "a sum", "reduction": "a sum"},
        ),
    ],
    ids=["mobilenet_v3", "convnext", "vit", "swin"],
)
def test_whole_networks(build, size: int, invariant: str | None, phrases: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    model = build()
    for module in model.modules():  # torchvision starts the last layer at 0, where all is unknown
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.1)
    observer = train(model, shape=(2, 3, size, size), loss=lambda out: out.sin().sum())
    verdicts = {v.parameter: v for v in observer.verdicts() if v.is_matrix}
    assert observer.groups() == []
    found = {name for name, v in verdicts.items() if v.scale_invariant}
    assert bool(found) is (invariant is not None)
    if invariant is not None:
        assert invariant in found
    for part, phrase in phrases.items():
        chosen = [v for name, v in verdicts.items() if part in name]
        assert chosen
        assert all(v.scale_invariant is False and phrase in v.reason for v in chosen), part
