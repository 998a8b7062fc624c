"""A decoder of Llama's or Qwen2's architecture with random weights, and its cache of fixed size.

What it takes of time and energy depends on sizes, not on what it has learned, so nothing is
downloaded. One step of decoding is a fixed sequence of kernels, which a GPU replays as a CUDA
graph: without that, a small batch measures how fast Python launches kernels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, rms_norm, scaled_dot_product_attention, silu

WEIGHT_SCALE = 0.02  # the standard deviation that such models begin training with
WARMUP_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes, as a model's config.json names them."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def parameters(self) -> int:
        """Weights of all matrices, with embeddings and head."""
        head = self.head_size
        attention = 2 * self.hidden_size * head * (
            self.num_attention_heads + self.num_key_value_heads
        )  # fmt: skip
        layer = attention + 3 * self.hidden_size * self.intermediate_size
        return self.num_hidden_layers * layer + 2 * self.vocab_size * self.hidden_size


# Of their config.json on the model hub.
SHAPES = {
    "tiny": Shape(
        hidden_size=64, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, vocab_size=512,
    ),
    "qwen2-7b": Shape(
        hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
        num_attention_heads=28, num_key_value_heads=4, vocab_size=152064, rope_theta=1e6,
    ),
    "llama-3.1-8b": Shape(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, vocab_size=128256, rope_theta=5e5,
        rms_norm_eps=1e-5,
    ),
}  # fmt: skip


def read_shape(path: Path) -> Shape:
    """Of a config.json. Raises ``ValueError`` that names what is missing, and ``OSError``."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    names = [name for name in Shape.__dataclass_fields__ if name in config]
    try:
        shape = Shape(**{name: config[name] for name in names})
        fits = shape.hidden_size % shape.num_attention_heads == 0
        fits = fits and shape.num_attention_heads % shape.num_key_value_heads == 0
    except (TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{path} is no config of a Llama or Qwen2 model: {error}") from None
    if not fits or shape.head_size % 2:
        raise ValueError(f"{path}: heads do not divide hidden_size {shape.hidden_size} evenly")
    return shape


class Decoder:
    """The weights, on one device in one precision."""

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.shape = shape
        self.device = device
        self.dtype = dtype
        generator = torch.Generator(device).manual_seed(0)

        def matrix(rows: int, columns: int) -> Tensor:
            values = torch.empty(rows, columns, device=device, dtype=dtype)
            return values.normal_(0.0, WEIGHT_SCALE, generator=generator)

        hidden, inner, head = shape.hidden_size, shape.intermediate_size, shape.head_size
        heads = shape.num_attention_heads + 2 * shape.num_key_value_heads
        self.layers = [
            {
                "qkv": matrix(heads * head, hidden),
                "out": matrix(hidden, shape.num_attention_heads * head),
                "gate_up": matrix(2 * inner, hidden),
                "down": matrix(hidden, inner),
            }
            for _ in range(shape.num_hidden_layers)
        ]
        self.table = matrix(shape.vocab_size, hidden)
        self.head = matrix(shape.vocab_size, hidden)
        powers = torch.arange(0, head, 2, device=device, dtype=torch.float32) / head
        self.frequencies = shape.rope_theta**-powers

    def forward(self, tokens: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """The likeliest token behind each row of ``tokens`` (batch x length), which stand at
        ``positions`` (length); their keys and values are added to ``cache``.
        """
        shape = self.shape
        size, eps = (shape.hidden_size,), shape.rms_norm_eps
        angles = positions[:, None] * self.frequencies
        turn = (angles.cos().to(self.dtype), angles.sin().to(self.dtype))
        seen = cache.places[None, :] <= positions[:, None]
        x = embedding(tokens, self.table)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            split = self._heads(linear(rms_norm(x, size, eps=eps), layer["qkv"]))
            query, key = _rotate(split[0], *turn), _rotate(split[1], *turn)
            keys.index_copy_(2, positions, key)
            values.index_copy_(2, positions, split[2])
            x = x + linear(self._attend(query, keys, values, seen), layer["out"])
            gate, up = linear(rms_norm(x, size, eps=eps), layer["gate_up"]).chunk(2, -1)
            x = x + linear(silu(gate) * up, layer["down"])
        return linear(rms_norm(x[:, -1], size, eps=eps), self.head).argmax(-1, keepdim=True)

    def _heads(self, projected: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values as batch x heads x length x head size."""
        shape = self.shape
        counts = (shape.num_attention_heads, shape.num_key_value_heads, shape.num_key_value_heads)
        apart = projected.unflatten(-1, (-1, shape.head_size)).transpose(1, 2)
        return apart.split(counts, 1)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        """The queries of a group that has one key stand behind each other, so that keys need not
        be repeated.
        """
        batch, heads, length, size = query.shape
        shared = keys.shape[1]
        rows = query.reshape(batch, shared, -1, size)
        found = scaled_dot_product_attention(
            rows, keys, values, attn_mask=seen.repeat(heads // shared, 1)
        )
        return found.reshape(batch, heads, length, size).transpose(1, 2).flatten(2)


class Cache:
    """Keys and values of ``batch`` sequences, with room for ``length`` tokens each."""

    def __init__(self, decoder: Decoder, batch: int, length: int) -> None:
        shape = decoder.shape
        sizes = (batch, shape.num_key_value_heads, length, shape.head_size)

        def room() -> list[Tensor]:
            options = {"device": decoder.device, "dtype": decoder.dtype}
            return [torch.zeros(sizes, **options) for _ in decoder.layers]  # type: ignore[arg-type]

        self.keys, self.values = room(), room()
        self.places = torch.arange(length, device=decoder.device)


class Generation:
    """Rounds of ``batch`` prompts that are answered together with ``new_tokens`` each."""

    def __init__(self, decoder: Decoder, batch: int, prompt_tokens: int, new_tokens: int) -> None:
        self.decoder = decoder
        self.batch = batch
        self.prompt_tokens = prompt_tokens
        self.new_tokens = new_tokens
        device, vocabulary = decoder.device, decoder.shape.vocab_size
        generator = torch.Generator(device).manual_seed(1)
        self._cache = Cache(decoder, batch, prompt_tokens + new_tokens)
        self._prompts = torch.randint(
            vocabulary, (batch, prompt_tokens), generator=generator, device=device
        )
        self._begin = torch.arange(prompt_tokens, device=device)
        self._token = torch.zeros(batch, 1, dtype=torch.long, device=device)
        self._position = torch.full((1,), prompt_tokens, device=device)
        self._graph = self._captured() if device.type == "cuda" else None

    @torch.inference_mode()
    def round(self) -> Tensor:
        """Answer the prompts; returns the last token of each, when the device may still work."""
        self._token.copy_(self.decoder.forward(self._prompts, self._begin, self._cache))
        self._position.fill_(self.prompt_tokens)
        for _ in range(self.new_tokens - 1):
            if self._graph is None:
                self._step()
            else:
                self._graph.replay()
        return self._token

    def _step(self) -> None:
        """The next token of each sequence takes the place of the one before."""
        self._token.copy_(self.decoder.forward(self._token, self._position, self._cache))
        self._position.add_(1)

    @torch.inference_mode()
    def _captured(self) -> torch.cuda.CUDAGraph:
        """A step as a graph; what is executed once before must not be captured."""
        aside = torch.cuda.Stream(self.decoder.device)
        aside.wait_stream(torch.cuda.current_stream(self.decoder.device))
        with torch.cuda.stream(aside):
            for _ in range(WARMUP_STEPS):
                self._position.fill_(self.prompt_tokens)
                self._step()
        torch.cuda.current_stream(self.decoder.device).wait_stream(aside)
        self._position.fill_(self.prompt_tokens)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        return graph


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions; the halves of a head are its real and imaginary parts."""
    real, imaginary = x.chunk(2, -1)
    return torch.cat([real * cos - imaginary * sin, imaginary * cos + real * sin], -1)
