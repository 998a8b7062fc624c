"""A decoder-only language model in plain torch, as small or large as asked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

HEAD_WIDTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """``width`` is a multiple of 64, the width of a head."""

    width: int
    layers: int
    length: int
    vocabulary: int


class Block(nn.Module):
    """Attention and a feed-forward part, each with its normalisation before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.before_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.projection = nn.Linear(width, width, bias=False)
        self.before_forward = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, width = x.shape
        qkv = self.qkv(self.before_attention(x))
        q, k, v = qkv.view(rows, length, 3, self.heads, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).reshape(rows, length, width))
        expanded = functional.gelu(self.up(self.before_forward(x)))
        return torch.add(x, self.down(expanded))


class SmallModel(nn.Module):
    """Returns the mean loss of predicting each next token."""

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        self.size = size
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.positions = nn.Embedding(size.length, size.width)
        self.blocks = nn.ModuleList(Block(size.width) for _ in range(size.layers))
        self.last = nn.LayerNorm(size.width)
        self.head = nn.Linear(size.width, size.vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        given, wanted = rows[:, :-1], rows[:, 1:]
        x = self.tokens(given) + self.positions.weight[: given.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.last(x)).flatten(0, 1)
        return functional.cross_entropy(logits.float(), wanted.flatten())

    def matrix_parameters(self) -> int:
        """Parameters that every token is multiplied with: all but the two embeddings."""
        looked_up = self.tokens.weight.numel() + self.positions.weight.numel()
        return sum(parameter.numel() for parameter in self.parameters()) - looked_up
