"""Which matrices of a language model are scale-invariant, and what that means for Δ*."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from smd_hooks.measure import (
    ScaleInvarianceObserver,
    StepProbe,
    Verdict,
)
from smd_hooks.theory import AdamRule, equilibrium_angle, relaxation_time

from .transformers import (
    BLOCK,
    HEADS,
    LAYERS,
    VOCABULARY,
    WIDTH,
    language_model,
    loss_of,
    tokens,
)

# ------------------------------------------------------------------------ scale invariance


def observed(model: nn.Module) -> ScaleInvarianceObserver:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    observer = ScaleInvarianceObserver(model, optimizer)
    step = 0
    while not observer.done:
        optimizer.zero_grad()
        loss_of(model, tokens(step)).backward()
        optimizer.step()
        step += 1
    observer.detach()
    return observer


def matrices(observer: ScaleInvarianceObserver) -> dict[str, Verdict]:
    return {v.parameter.removesuffix(".weight"): v for v in observer.verdicts() if v.is_matrix}


SUM = "reaches a sum with something else (residual, bias or lateral connection)"
PRE_NORM = {
    "embedding.token": f"{SUM} and the loss or the model's output before any norm",
    "embedding.position": f"{SUM} before any norm",
    "attention.qkv": "reaches an attention (as query or key) and another weight before any norm",
    "attention.out": f"{SUM} before any norm",
    "mlp.up": "reaches a GELU before any norm",
    "mlp.down": f"{SUM} before any norm",
}


QK = {"attention.q", "attention.k"}


def without_block(name: str) -> str:
    return name.split(".", 2)[2] if name.startswith("blocks.") else name


def test_nothing_in_a_pre_norm_transformer_is_scale_invariant_and_why() -> None:
    observer = observed(language_model())
    found = matrices(observer)
    assert len(found) == 2 + 4 * LAYERS
    for name, verdict in found.items():
        assert (verdict.scale_invariant, verdict.per_filter) == (False, False), name
        assert verdict.reason == PRE_NORM[without_block(name)], name
        # an order of magnitude above the limit: no matter of rounding or of few batches
        assert verdict.statistic is not None
        assert verdict.statistic > 0.1, name
    assert observer.groups() == []


def test_the_pipelines_gpt_is_judged_alike() -> None:
    gpt = pytest.importorskip("benchmarks.pipelines.language.gpt")
    torch.manual_seed(0)
    model = gpt.GPT(VOCABULARY, BLOCK, LAYERS, HEADS, WIDTH)
    found = matrices(observed(model))
    ours = matrices(observed(language_model()))
    assert {n: (v.scale_invariant, v.per_filter, v.reason) for n, v in found.items()} == {
        n: (v.scale_invariant, v.per_filter, v.reason) for n, v in ours.items()
    }


def invariant(found: dict[str, Verdict]) -> set[str]:
    return {without_block(name) for name, v in found.items() if v.scale_invariant}


@pytest.mark.parametrize(
    ("options", "wanted", "reason"),
    [
        # queries and keys of each head go through a norm, values do not
        ({"qk_norm": True, "split": True}, QK, "normalized"),
        # a norm at each branch's end takes the size of what writes to the sum
        ({"norms": "branch"}, {"attention.out", "mlp.down"}, "normalized by blocks.0.norm1"),
        # controls: one matrix for q, k and v is scaled with its values; sums before the norm
        ({"qk_norm": True}, set(), ""),
        ({"split": True}, set(), ""),
        ({"norms": "post"}, set(), ""),
    ],
    ids=["qk norm", "branch norm", "qk norm, one matrix", "no qk norm", "post norm"],
)
def test_other_transformers_get_other_verdicts(
    options: dict[str, Any], wanted: set[str], reason: str
) -> None:
    found = matrices(observed(language_model(bias=False, **options)))
    assert invariant(found) == wanted
    assert sum(bool(v.scale_invariant) for v in found.values()) == LAYERS * len(wanted)
    if wanted:
        first = next(v for v in found.values() if v.scale_invariant)
        assert first.reason == reason
        # a LayerNorm over several neurons: they are scale-invariant together, none alone
        assert first.per_filter is False


def test_a_bias_makes_normalized_queries_invariant_only_with_it() -> None:
    found = matrices(observed(language_model(qk_norm=True, split=True)))
    assert invariant(found) == set()
    for side in "qk":
        reason = found[f"blocks.0.attention.{side}"].reason
        assert reason == "scale-invariant only jointly with its bias"


@pytest.mark.parametrize(
    ("options", "groups"),
    [({"tied": False, "bias": False}, 1), ({"bias": False}, 0), ({"tied": False}, 0)],
    ids=["untied, no bias", "tied", "biases"],
)
def test_all_that_writes_to_an_untied_residual_stream_is_invariant_together(
    options: dict[str, Any], groups: int
) -> None:
    """A pre-norm stream ends in norms only; a tied head, or a bias, adds what does not scale."""
    found = observed(language_model(**options)).groups()
    assert len(found) == groups
    for group in found:
        assert {without_block(m.removesuffix(".weight")) for m in group.members} == {
            *("embedding.token", "embedding.position", "attention.out", "mlp.down")
        }
        assert len(group.members) == 2 + 2 * LAYERS


# ------------------------------------------------------------ what that means for Δ*

LR, DECAY, BETAS = 5e-3, 2.0, (0.9, 0.95)


def turned(model: nn.Module, seed: int) -> dict[str, float]:
    """RMS of Δ/Δ* of each matrix under AdamW over its fifth to eighth relaxation time."""
    rule = AdamRule(LR, DECAY, *BETAS)
    steps = round(8 * relaxation_time(rule))
    vectors = {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0}
    matrices = [p for p in model.parameters() if p.ndim > 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, vectors], lr=LR, betas=BETAS, weight_decay=DECAY
    )
    probe = StepProbe(optimizer, model.named_parameters())
    generator = torch.Generator().manual_seed(seed)
    # each token makes some next ones likely and rules none out: the noise never ends
    follows = (2 * torch.randn(VOCABULARY, VOCABULARY, generator=generator)).softmax(1)
    for _ in range(steps):
        text = torch.randint(VOCABULARY, (16, 1), generator=generator)
        for _ in range(BLOCK):
            drawn = torch.multinomial(follows[text[:, -1]], 1, generator=generator)
            text = torch.cat([text, drawn], 1)
        optimizer.zero_grad()
        loss_of(model, text).backward()
        optimizer.step()
    frame = probe.to_frame()
    late = frame[frame["step"] >= steps // 2]
    square = (late["angular_update"] ** 2).groupby(late["parameter"], sort=False).mean()
    return {
        name.removesuffix(".weight"): math.sqrt(value) / equilibrium_angle(rule)
        for name, value in square.items()
    }


@pytest.mark.slow
def test_the_closed_form_holds_for_what_is_invariant_and_for_nothing_else_in_a_transformer() -> (
    None
):
    """The random walk that Δ* follows from takes place across the weight.

    A radial part of the gradient adds to the decay or takes from it, by as much as the loss
    likes: outputs that sharpen keep their matrices long and slow, those that the loss wants
    smaller turn too fast. No size of it is known before training.
    """
    ratios = turned(language_model(1, qk_norm=True, split=True, bias=False), seed=1)
    for name, ratio in ratios.items():
        print(f"{name:28s} Δ/Δ* {ratio:.2f}")
    normalized = {n: r for n, r in ratios.items() if without_block(n) in QK}
    others = [ratio for name, ratio in ratios.items() if name not in normalized]
    assert len(normalized) == 2 * LAYERS
    assert all(ratio == pytest.approx(1, abs=0.1) for ratio in normalized.values())
    off = [ratio for ratio in others if abs(ratio - 1) > 0.1]
    assert len(off) > len(others) / 2
    assert min(others) < 0.5
    assert max(others) > 1.5
