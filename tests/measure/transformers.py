"""A small language model of every kind whose scale invariance differs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY, BLOCK, LAYERS, HEADS, WIDTH = 17, 12, 2, 2, 16
SEQUENCES = 6


class Attention(nn.Module):
    """Causal self-attention; with ``qk_norm`` queries and keys are normalized per head."""

    def __init__(self, qk_norm: bool, bias: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=bias)
        self.out = nn.Linear(WIDTH, WIDTH, bias=bias)
        self.qk_norm = qk_norm

    def projected(self, x: Tensor) -> Sequence[Tensor]:
        return self.qkv(x).chunk(3, -1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            each.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for each in self.projected(x)
        )
        if self.qk_norm:
            query, key = (F.layer_norm(each, each.shape[-1:]) for each in (query, key))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class SplitAttention(Attention):
    """The same with a matrix each for queries, keys and values."""

    def __init__(self, qk_norm: bool, bias: bool) -> None:
        super().__init__(qk_norm, bias)
        del self.qkv
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=bias) for _ in range(3))

    def projected(self, x: Tensor) -> Sequence[Tensor]:
        return self.q(x), self.k(x), self.v(x)


class MLP(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=bias)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, norms: str, attention: nn.Module, bias: bool) -> None:
        super().__init__()
        self.norms = norms
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, bias=bias), nn.LayerNorm(WIDTH, bias=bias)
        self.attention, self.mlp = attention, MLP(bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.norms == "pre":
            x = x + self.attention(self.norm1(x))
            return x + self.mlp(self.norm2(x))
        if self.norms == "post":
            return self.norm2((y := self.norm1(x + self.attention(x))) + self.mlp(y))
        # what a branch adds is normalized before it is added
        x = x + self.norm1(self.attention(x))
        return x + self.norm2(self.mlp(x))


class LanguageModel(nn.Module):
    """GPT-2's layout with options that decide which matrices are scale-invariant.

    Args:
        norms: ``"pre"`` (GPT-2), ``"post"`` (norm after each sum) or ``"branch"`` (norm at
            each branch's end).
        qk_norm: Normalize queries and keys per head.
        split: One matrix each for queries, keys and values.
        tied: The head is the embedding of tokens.
        bias: Biases in linear layers and norms.
    """

    def __init__(
        self,
        norms: str = "pre",
        qk_norm: bool = False,
        split: bool = False,
        tied: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = nn.ModuleDict(
            {"token": nn.Embedding(VOCABULARY, WIDTH), "position": nn.Embedding(BLOCK, WIDTH)}
        )
        kind = SplitAttention if split else Attention
        self.blocks = nn.ModuleList(Block(norms, kind(qk_norm, bias), bias) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH, bias=bias)
        self.head = None if tied else nn.Linear(WIDTH, VOCABULARY, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                deviation = 0.2 / math.sqrt(2 * LAYERS) if residual else 0.2
                nn.init.normal_(parameter, std=deviation)

    def forward(self, inputs: Tensor) -> Tensor:
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        x = self.embedding["token"](inputs) + self.embedding["position"](positions)
        for block in self.blocks:
            x = block(x)
        head = self.embedding["token"].weight if self.head is None else self.head.weight
        return F.linear(self.norm(x), head)


def tokens(seed: int, sequences: int = SEQUENCES) -> Tensor:
    """Sequences in which each token says something of the next, (sequences, BLOCK + 1)."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(VOCABULARY, (sequences, 1), generator=generator)
    stride = torch.randint(1, 3, (sequences, 1), generator=generator)
    return (start + stride * torch.arange(BLOCK + 1)) % VOCABULARY


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def language_model(seed: int = 0, **options: Any) -> LanguageModel:
    torch.manual_seed(seed)
    return LanguageModel(**options)
