"""The workload's own trainer with the fused engine."""

from __future__ import annotations

from typing import Any

from finetune.fused.engine import FusedEngine
from finetune.fused.sharded import ShardGroup
from finetune.model.lora import Trainable
from finetune.training.trainer import Trainer

from .work import Work


class Ours:
    """With a `group`, its ranks hold the frozen weights together."""

    def __init__(self, model: Any, work: Work, group: ShardGroup | None = None) -> None:
        tokenizer = type("Padding", (), {"pad_token_id": 0})
        trainable = Trainable(
            model=model,
            tokenizer=tokenizer,
            world=work.world,
            settings=work.settings,
            group=group,
        )
        self.work = work
        self.trainer = Trainer(trainable, work.rows)

    @property
    def engine(self) -> FusedEngine:
        """The fused one, since the benchmark asks for no other."""
        found = self.trainer.engine
        assert isinstance(found, FusedEngine)
        return found

    @property
    def description(self) -> str:
        return f"{self.trainer.engine.description}, micro-batch {self.trainer.micro_batch}"

    def step(self, step: int) -> float:
        return self.trainer.step(step).loss

    def close(self) -> None:
        self.trainer.prefetcher.close()
