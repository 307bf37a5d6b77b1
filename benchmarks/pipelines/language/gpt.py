"""GPT-2 as an MMEngine model."""

from __future__ import annotations

from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import MODELS
from torch import Tensor, arange, nn
from torch.nn import functional

from benchmarks.errors import UsageError


class Embedding(nn.Module):
    """The sum of what a token is and where it stands."""

    def __init__(self, vocab_size: int, block_size: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(block_size, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed tokens (batch, length) as vectors (batch, length, width)."""
        places = arange(tokens.shape[1], device=tokens.device)
        return self.token(tokens) + self.position(places)


class Attention(nn.Module):
    """Causal self-attention; ``qkv`` makes queries, keys and values, in this order."""

    def __init__(self, width: int, heads: int, bias: bool, dropout: float) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.heads = heads
        self.dropout = dropout

    def forward(self, hidden: Tensor) -> Tensor:
        """Mix each of (batch, length, width) with those before it."""
        batch, length, width = hidden.shape
        parted = self.qkv(hidden).view(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = parted.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=True,
        )
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    """Two layers, the hidden one four times as wide, with GELU in its tanh form between them."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=bias)
        self.down = nn.Linear(4 * width, width, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform each of (batch, length, width) by itself."""
        return self.down(functional.gelu(self.up(hidden), approximate="tanh"))


class Block(nn.Module):
    """A pre-norm layer: attention and MLP, each behind a LayerNorm and beside a shortcut."""

    def __init__(self, width: int, heads: int, bias: bool, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, bias=bias)
        self.attention = Attention(width, heads, bias, dropout)
        self.norm2 = nn.LayerNorm(width, bias=bias)
        self.mlp = Mlp(width, bias)
        self.dropout = dropout

    def forward(self, hidden: Tensor) -> Tensor:
        """Add to (batch, length, width) what attention and MLP make of it."""
        hidden = hidden + self._dropped(self.attention(self.norm1(hidden)))
        return hidden + self._dropped(self.mlp(self.norm2(hidden)))

    def _dropped(self, hidden: Tensor) -> Tensor:
        return functional.dropout(hidden, self.dropout, self.training)


@MODELS.register_module()
class GPT(BaseModel):
    """GPT-2: a decoder-only transformer with learned positions and a tied output head.

    Its logits are inner products with the token embeddings: the head is no module of its own.
    Weights start from N(0, ``init_std``²), those that write to the shortcut (``attention.out`` and
    ``mlp.down``) from a std smaller by √(2 · layers); biases from 0. The published 124M model
    has 12 layers, 12 heads, width 768, 50,257 tokens and blocks of 1,024.

    Args:
        vocab_size: number of tokens.
        block_size: largest number of tokens in a sequence.
        layers: number of transformer blocks.
        heads: attention heads of each, a divisor of the width.
        width: numbers per token between blocks.
        bias: whether linear layers and LayerNorms have biases.
        dropout: share of embeddings, attention weights and block outputs that training drops.
        init_std: of the weights; the published one. For the same sizes at another width it goes
            with its inverse root, which matters to what keeps its norm.

    Raises:
        UsageError: the heads cannot share the width.

    Source: Radford et al., *Language Models are Unsupervised Multitask Learners*, 2019, §2.3,
    and *Improving Language Understanding by Generative Pre-Training*, 2018, §4.1.

    Example:
        ::

            model = dict(
                type='GPT', vocab_size=50257, block_size=1024, layers=12, heads=12, width=768
            )
    """

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        layers: int,
        heads: int,
        width: int,
        bias: bool = True,
        dropout: float = 0.0,
        init_std: float = 0.02,
    ) -> None:
        super().__init__(BaseDataPreprocessor(non_blocking=True))
        if width % heads:
            raise UsageError(
                f"model.width={width} cannot be shared by model.heads={heads}: make it a multiple"
            )
        self.embedding = Embedding(vocab_size, block_size, width)
        self.blocks = nn.ModuleList(Block(width, heads, bias, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=bias)
        self.dropout = dropout
        self._initialize(init_std)

    def _initialize(self, init_std: float) -> None:
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                writes_to_shortcut = name.endswith((".attention.out", ".mlp.down"))
                parts = 2 * len(self.blocks) if writes_to_shortcut else 1
                nn.init.normal_(module.weight, std=init_std / parts**0.5)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(
        self, inputs: Tensor, targets: Tensor | None = None, mode: str = "tensor"
    ) -> Tensor | dict[str, Tensor] | list[dict[str, Tensor]]:
        """Run the model on a batch of sequences.

        Args:
            inputs: tokens, int64 of shape (batch, length), length at most ``block_size``.
            targets: the token after each, of the same shape; needed for ``'loss'`` and
                ``'predict'``.
            mode: what to return, as MMEngine asks for it.

        Returns:
            ``'tensor'``: logits (batch, length, vocab_size). ``'loss'``: ``dict(loss=...)``, the
            mean cross-entropy in nats per token. ``'predict'``: for each sequence
            ``dict(loss=...)``, its own mean, for :class:`.TokenLoss`; a sequence's logits can be
            hundreds of megabytes and are not kept.

        Raises:
            ValueError: unknown mode, or no targets where they are needed.
        """
        if mode not in ("tensor", "loss", "predict"):
            raise ValueError(f"unknown mode '{mode}': use 'tensor', 'loss' or 'predict'")
        if mode != "tensor" and targets is None:
            raise ValueError(f"mode '{mode}' needs targets")
        logits = self._logits(inputs)
        if targets is None or mode == "tensor":
            return logits
        # one row per token, the layout in which this copies nothing: logits can fill a GPU
        flat = logits.flatten(0, 1), targets.flatten()
        if mode == "loss":
            return {"loss": functional.cross_entropy(*flat)}
        losses = functional.cross_entropy(*flat, reduction="none").view_as(targets)
        return [{"loss": loss} for loss in losses.mean(dim=1)]

    def _logits(self, tokens: Tensor) -> Tensor:
        hidden = functional.dropout(self.embedding(tokens), self.dropout, self.training)
        for block in self.blocks:
            hidden = block(hidden)
        return functional.linear(self.norm(hidden), self.embedding.token.weight)
