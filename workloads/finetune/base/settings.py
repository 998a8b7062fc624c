"""What the script takes on its command line."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

# What may differ between the attempt that wrote a checkpoint and the one that resumes from it.
FREE_TO_CHANGE = frozenset(
    "checkpoint_every collective_timeout engine eval_every generate_batch gpu_hour_usd "
    "inner_scaling keep_checkpoints max_new_tokens micro_batch oom outer_learning_rate "
    "outer_momentum recompute round_compression round_exchange round_steps shard".split()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every parameter of a fine-tuning run; workload.yaml says what each is, and what it may be."""

    model: str
    dataset: str
    steps: int
    micro_batch: int | str
    oom: str
    accumulation: int
    global_batch: int
    sequence_length: int
    packing: bool
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    learning_rate: float
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    dtype: str
    attention: str
    engine: str
    recompute: str
    fp8: bool
    shard: str
    gradient_checkpointing: bool
    device: str
    eval_every: int
    checkpoint_every: int
    keep_checkpoints: int
    train_conversations: int
    eval_conversations: int
    generate_batch: int
    max_new_tokens: int
    seed: int
    round_exchange: str
    round_steps: int | str
    inner_scaling: str
    outer_learning_rate: float
    outer_momentum: float
    round_compression: str
    gpu_hour_usd: float
    collective_timeout: int

    @property
    def one_row(self) -> bool:
        """Whether a micro-batch's rows are laid end to end."""
        return self.engine == "fused" or self.attention == "flash_attention_2"

    def rows_per_step(self, world_size: int) -> int:
        """Rows that all ranks together train on in one step."""
        if self.global_batch:
            return self.global_batch
        assert isinstance(self.micro_batch, int), "a rule in workload.yaml forbids auto here"
        return self.micro_batch * self.accumulation * world_size

    def digest(self, world_size: int) -> str:
        """Identity of the training: equal digests give the same sequence of updates."""
        kept = {name: value for name, value in asdict(self).items() if name not in FREE_TO_CHANGE}
        kept["global_batch"] = self.rows_per_step(world_size)
        del kept["accumulation"]
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
