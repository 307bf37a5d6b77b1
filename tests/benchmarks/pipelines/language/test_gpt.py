"""GPT-2 against explicit loops, its initialisation, and what it is allowed to see."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.errors import UsageError
from benchmarks.pipelines.language import GPT

SMALL = dict(vocab_size=13, block_size=9, layers=2, heads=3, width=12)


def build(seed: int = 0, **options: Any) -> GPT:
    torch.manual_seed(seed)
    model = MODELS.build(dict(type="GPT", **{**SMALL, **options}))
    assert isinstance(model, GPT)
    return model


def shaken(**options: Any) -> GPT:
    """With weights large enough that everything counts, in double precision."""
    model = build(**options).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def tokens(batch: int = 2, length: int = 7, vocab_size: int = 13) -> Tensor:
    return torch.randint(vocab_size, (batch, length), generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------------- the reference


def norm(x: list[float], layer: nn.LayerNorm) -> list[float]:
    mean = sum(x) / len(x)
    std = math.sqrt(sum((a - mean) ** 2 for a in x) / len(x) + 1e-5)
    bias = [0.0] * len(x) if layer.bias is None else layer.bias.tolist()
    return [
        (a - mean) / std * w + b for a, w, b in zip(x, layer.weight.tolist(), bias, strict=True)
    ]


def linear(x: list[float], layer: nn.Linear) -> list[float]:
    bias = [0.0] * layer.out_features if layer.bias is None else layer.bias.tolist()
    rows = layer.weight.tolist()
    return [sum(a * w for a, w in zip(x, row, strict=True)) + bias[i] for i, row in enumerate(rows)]


def gelu(x: float) -> float:
    return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attend(xs: list[list[float]], layer: Any, heads: int) -> list[list[float]]:
    width = len(xs[0])
    size = width // heads
    qkv = [linear(x, layer.qkv) for x in xs]
    mixed = [[0.0] * width for _ in xs]
    for head in range(heads):
        at = range(head * size, (head + 1) * size)
        for t in range(len(xs)):
            scores = [
                sum(qkv[t][i] * qkv[s][width + i] for i in at) / math.sqrt(size)
                for s in range(t + 1)
            ]
            total = sum(math.exp(score) for score in scores)
            for i in at:
                mixed[t][i] = sum(
                    math.exp(score) / total * qkv[s][2 * width + i]
                    for s, score in enumerate(scores)
                )
    return [linear(m, layer.out) for m in mixed]


def plus(xs: list[list[float]], ys: list[list[float]]) -> list[list[float]]:
    return [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(xs, ys, strict=True)]


def reference(model: GPT, sequence: list[int], heads: int) -> list[list[float]]:
    """Logits of one sequence, by lists and loops."""
    words = model.embedding.token.weight.tolist()
    places = model.embedding.position.weight.tolist()
    xs = plus([words[token] for token in sequence], places[: len(sequence)])
    for block in model.blocks:
        xs = plus(xs, attend([norm(x, block.norm1) for x in xs], block.attention, heads))
        hidden = [linear(norm(x, block.norm2), block.mlp.up) for x in xs]
        xs = plus(xs, [linear([gelu(a) for a in h], block.mlp.down) for h in hidden])
    xs = [norm(x, model.norm) for x in xs]
    return [[sum(a * b for a, b in zip(x, word, strict=True)) for word in words] for x in xs]


@pytest.mark.parametrize("bias", [True, False])
def test_logits_are_those_of_the_reference(bias: bool) -> None:
    model, batch = shaken(bias=bias), tokens()
    wanted = torch.tensor([reference(model, row, 3) for row in batch.tolist()], dtype=torch.double)
    torch.testing.assert_close(model(batch), wanted, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(model.float()(batch), wanted.float(), atol=1e-5, rtol=1e-4)
    other_heads = torch.tensor([reference(model, row, 4) for row in batch.tolist()])
    assert (other_heads - wanted).abs().max() > 0.01  # the control


# ------------------------------------------------------------------------- what it may see


def first_change(model: GPT) -> int:
    """Where logits first differ when the token at place 4 does."""
    batch = tokens(1)
    other = batch.clone()
    other[0, 4] = (other[0, 4] + 1) % 13
    differ = (model(batch) - model(other)).abs().amax(dim=2)[0] > 1e-12
    return int(differ.nonzero()[0])


def test_a_token_changes_no_earlier_logit() -> None:
    assert first_change(shaken()) == 4


def test_control_without_the_mask_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    masked = functional.scaled_dot_product_attention
    monkeypatch.setattr(
        functional,
        "scaled_dot_product_attention",
        lambda *args, is_causal, **options: masked(*args, **options),
    )
    assert first_change(shaken()) == 0


def test_places_matter() -> None:
    model = shaken()
    logits = model(torch.full((1, 5), 3))
    assert (logits[0, 0] - logits[0, 1]).abs().max() > 0.01
    nn.init.zeros_(model.embedding.position.weight)
    same = model(torch.full((1, 5), 3))
    torch.testing.assert_close(same[0, 0], same[0, 4])


# --------------------------------------------------------------------------- initialisation


def test_gpt2_small_has_its_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = GPT(vocab_size=50257, block_size=1024, layers=12, heads=12, width=768)
    assert sum(p.numel() for p in model.parameters()) == 124_439_808
    assert not any("bias" in name for name, _ in build(bias=False).named_parameters())


def test_the_head_is_the_embedding() -> None:
    model = build()
    names = {name for name, _ in model.named_modules()}
    assert names >= {
        *("embedding.token", "embedding.position", "norm"),
        *(f"blocks.1.{name}" for name in ("norm1", "attention.qkv", "attention.out", "norm2")),
        *(f"blocks.1.{name}" for name in ("mlp.up", "mlp.down")),
    }
    model(tokens(), tokens(), mode="loss")["loss"].backward()
    unseen = sorted(set(range(13)) - set(tokens().flatten().tolist()))
    gradient = model.embedding.token.weight.grad
    assert unseen
    assert gradient is not None
    assert gradient[unseen].abs().amin(dim=1).max() > 0  # only logits can tell


@pytest.mark.parametrize("init_std", [0.02, 0.07])
def test_weights_start_as_published_or_asked_for(init_std: float) -> None:
    options = {} if init_std == 0.02 else dict(init_std=init_std)
    model = build(vocab_size=500, block_size=200, layers=3, heads=4, width=128, **options)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        else:
            writes = name.endswith(("attention.out.weight", "mlp.down.weight"))
            std = init_std / math.sqrt(6) if writes else init_std
            spread = 5 / math.sqrt(parameter.numel())
            assert parameter.std().item() == pytest.approx(std, rel=spread), name
            assert abs(parameter.mean().item()) < spread * std, name


def test_before_training_every_token_is_as_likely() -> None:
    model = build(vocab_size=500, block_size=64, layers=3, heads=4, width=128)
    batch = tokens(8, 65, 500)
    loss = model(batch[:, :-1], batch[:, 1:], mode="loss")["loss"]
    assert loss.item() == pytest.approx(math.log(500), abs=0.05)


# --------------------------------------------------------------------------------- MMEngine


def test_losses_are_means_over_tokens() -> None:
    model, batch, after = shaken(), tokens(3), tokens(4)[1:]
    wanted = [
        [math.log(sum(math.exp(a) for a in row)) - row[target] for row, target in zip(*pair)]  # noqa: B905
        for pair in zip(model(batch).tolist(), after.tolist(), strict=True)
    ]
    means = [sum(row) / len(row) for row in wanted]
    found = model(batch, after, mode="predict")
    assert [sample["loss"].item() for sample in found] == pytest.approx(means)
    loss = model(batch, after, mode="loss")["loss"].item()
    assert loss == pytest.approx(sum(means) / 3)


def test_val_step_takes_a_collated_batch() -> None:
    batch = dict(inputs=tokens(), targets=tokens())
    assert len(build().eval().val_step(batch)) == 2


def test_dropout_is_for_training_alone() -> None:
    model, batch = build(dropout=0.5), tokens()
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))
    assert torch.equal(model(batch), build().eval()(batch))


def test_unknown_mode_and_missing_targets_are_errors() -> None:
    with pytest.raises(ValueError, match="unknown mode 'train'"):
        build()(tokens(), tokens(), mode="train")
    with pytest.raises(ValueError, match="needs targets"):
        build()(tokens(), mode="loss")


def test_heads_that_cannot_share_the_width_are_one_line() -> None:
    with pytest.raises(UsageError) as caught:
        build(heads=5)
    assert "model.width=12 cannot be shared by model.heads=5" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_precision_by_autocast_changes_little() -> None:
    model, batch = build(), tokens()
    exact = model(batch, batch, mode="loss")["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, loss = model(batch), model(batch, batch, mode="loss")["loss"]
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, atol=1e-3, rtol=0)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
