"""The sizes of a transformer, and what follows from them."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.core.base.wire_names import wire


@wire("ModelShape")
class ModelShape(NamedTuple):
    """A decoder with grouped key-value heads and a gated MLP. ``intermediate`` is the width of one
    MLP, or of one expert where there are ``experts``, of which each token uses ``active_experts``.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool = False
    experts: int = 0
    active_experts: int = 0

    @property
    def qkv(self) -> int:
        """Width of a token's queries, keys and values side by side."""
        return (self.heads + 2 * self.kv_heads) * self.head_size

    @property
    def mixed(self) -> int:
        """Width of what attention gives for a token."""
        return self.heads * self.head_size

    @property
    def attention_weights(self) -> int:
        """Values of one layer's projections around attention."""
        return self.hidden * (self.qkv + self.mixed)

    @property
    def mlp_weights(self) -> int:
        """Values of one MLP or expert: gate, up and down."""
        return 3 * self.hidden * self.intermediate

    @property
    def active_width(self) -> int:
        """Width of the MLP, or of all experts together, that a token passes through."""
        return max(1, self.active_experts) * self.intermediate

    @property
    def active_mlp_weights(self) -> int:
        """Values of the MLP or the experts that a token uses in one layer."""
        return max(1, self.active_experts) * self.mlp_weights

    @property
    def table(self) -> int:
        """Values of the embedding, and of the output layer."""
        return self.vocabulary * self.hidden

    @property
    def layer_weights(self) -> int:
        """Values of all matrices of one layer."""
        return self.attention_weights + max(1, self.experts) * self.mlp_weights

    @property
    def matrices(self) -> int:
        """Values of all matrices that products read, the output layer included."""
        return self.layers * self.layer_weights + self.table

    @property
    def used_matrices(self) -> int:
        """As ``matrices``, of what one token uses."""
        return self.layers * (self.attention_weights + self.active_mlp_weights) + self.table

    @property
    def parameters(self) -> int:
        """All matrices and norms; biases, which are few, are left out."""
        embedding = 0 if self.tied else self.table
        return self.matrices + embedding + (2 * self.layers + 1) * self.hidden

    def cache_values(self) -> int:
        """Keys and values that one token leaves in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_size

    def adapter_values(self, rank: int) -> int:
        """Of LoRA on the seven projections of each layer (arXiv 2106.09685)."""
        attention = rank * (3 * self.hidden + self.qkv + self.mixed + self.hidden)
        mlp = rank * 3 * (self.hidden + self.intermediate)
        return self.layers * (attention + mlp)
