"""Gradient noise and representation change of a language model's layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from smd_hooks.measure import GradientNoiseProbe, RepresentationProbe
from smd_hooks.measure.representation import POSITIONS

from .transformers import (
    BLOCK,
    LAYERS,
    SEQUENCES,
    VOCABULARY,
    LanguageModel,
    language_model,
    loss_of,
    tokens,
)


class MLP(nn.Sequential):
    """Two hidden layers on tokens one-hot, predicting each next one by itself."""

    def __init__(self) -> None:
        super().__init__(
            nn.Embedding(VOCABULARY, 12), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, VOCABULARY)
        )


def per_sample_ratios(model: nn.Module, population: Tensor) -> dict[str, float]:
    """φ of each matrix, from the gradient of every single sequence there is."""

    def loss(parameters: dict[str, Tensor], sequence: Tensor) -> Tensor:
        logits = functional_call(model, parameters, (sequence[None, :-1],))
        return F.cross_entropy(logits[0], sequence[1:])

    parameters = {name: p.detach() for name, p in model.named_parameters()}
    with sdpa_kernel(SDPBackend.MATH):
        per_sample = vmap(grad(loss), (None, 0))(parameters, population)
    ratios = {}
    for name, gradients in per_sample.items():
        if gradients.ndim == 3:
            flat = gradients.flatten(1).double()
            noise = (flat - flat.mean(0)).square().sum(1).mean()
            ratios[name] = float(flat.mean(0).square().sum() / noise)
    return ratios


@pytest.mark.slow
@pytest.mark.parametrize("kind", [LanguageModel, MLP])
def test_the_estimate_is_the_ratio_of_per_sample_gradients(kind: type[nn.Module]) -> None:
    """At frozen weights, without BN, Bφ ≥ 1, 250 draws: within 10 %."""
    torch.manual_seed(0)
    model, population = kind(), tokens(seed=1, sequences=64)
    wanted = per_sample_ratios(model, population)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    size, micro_batches, draws = 8, 4, 250
    probes = [
        GradientNoiseProbe(optimizer, model.named_parameters(), "*", 1, told)
        for told in (size, 2 * size)
    ]
    generator = torch.Generator().manual_seed(2)
    for _ in range(draws):
        for rows in torch.randint(len(population), (micro_batches, size), generator=generator):
            (loss_of(model, population[rows]) / micro_batches).backward()
        optimizer.step()
        optimizer.zero_grad()
    found, misled = (probe.drain() for probe in probes)
    assert len(wanted) == (2 + 4 * LAYERS if kind is LanguageModel else 3)
    for name, ratio in wanted.items():
        assert size * micro_batches * ratio >= 1, name
        of_it = found["parameter"] == name
        assert of_it.sum() == draws
        estimate = found["signal"][of_it].sum() / found["noise"][of_it].sum()
        assert estimate == pytest.approx(ratio, rel=0.1), name
        # control: a probe that was told the wrong batch size
        wrong = misled["signal"][of_it].sum() / misled["noise"][of_it].sum()
        assert wrong != pytest.approx(ratio, rel=0.1), name


# ------------------------------------------------------------------- representation change

MEASURED = [
    f"blocks.{i}.{part}"
    for i in range(LAYERS)
    for part in ("attention.qkv", "attention.out", "mlp.up", "mlp.down")
]


class InputsKept:
    """All inputs of a linear layer in one forward, and its weight on both sides of a step."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer, self.before = layer, layer.weight.detach().clone()
        layer.register_forward_pre_hook(self._keep)

    def _keep(self, _: nn.Module, args: tuple[Tensor]) -> None:
        self.inputs = args[0].detach().double()

    def change(self) -> float:
        before, after = self.before.double(), self.layer.weight.detach().double()
        return float((self.inputs @ (after - before).T).norm() / (self.inputs @ before.T).norm())


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16 autocast"])
@pytest.mark.parametrize("sequences", [SEQUENCES, 4 * POSITIONS // BLOCK], ids=["all", "some"])
def test_representation_change_of_a_transformers_layers(sequences: int, autocast: bool) -> None:
    """Of every layer, on inputs (sequences, tokens, width): within 1 % of all inputs in fp64."""
    model = language_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    probe = RepresentationProbe(optimizer, model, "*", interval=1)
    kept = {name: InputsKept(model.get_submodule(name)) for name in MEASURED}  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = loss_of(model, tokens(0, sequences))
    loss.backward()
    optimizer.step()
    columns = probe.drain()
    found = dict(zip(columns["parameter"], columns["representation_change"], strict=True))
    assert list(found) == [f"{name}.weight" for name in MEASURED]
    for name, layer in kept.items():
        assert found[f"{name}.weight"] == pytest.approx(layer.change(), rel=0.01), name
        # control: how far the weight moved does not tell how far its outputs did
        moved = (layer.layer.weight.detach() - layer.before).norm() / layer.before.norm()
        assert float(moved) != pytest.approx(layer.change(), rel=0.01), name


def test_an_embedding_that_is_also_the_head_is_refused_by_name() -> None:
    model = language_model()
    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(ValueError, match=r"layers='embedding\.token' matches no Linear or Conv"):
        RepresentationProbe(optimizer, model, ["blocks.*", "embedding.token"], interval=1)
