"""The script that most people write: transformers, peft, DDP, AdamW."""

from __future__ import annotations

from typing import Any

import torch

from .work import LEARNING_RATE, Script, Work, in_parallel, trained

MICRO_BATCH = 2


class Usual:
    """Weights are bf16 and adapters fp32, as peft makes them; `autocast` computes the adapters'
    products in bf16.
    """

    def __init__(
        self, model: Any, work: Work, *, checkpointing: bool = True, autocast: bool = False
    ) -> None:
        self.work, self.autocast = work, autocast
        self.model = model
        kind = "checkpointing" if checkpointing else "no checkpointing"
        self.description = f"transformers, peft, sdpa, {kind}"
        if checkpointing:
            options = {"use_reentrant": False}
            model.get_base_model().gradient_checkpointing_enable(options)
            model.enable_input_require_grads()
        parameters = trained(model)
        optimiser = torch.optim.AdamW(
            parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=work.on_gpu
        )
        parallel = in_parallel(model, work)
        self._script = Script(work, parallel, parameters, optimiser, MICRO_BATCH, self._loss)
        model.train()

    def step(self, step: int) -> float:
        return self._script.step(step)

    def _loss(self, ids: torch.Tensor) -> torch.Tensor:
        on = self.autocast and self.work.on_gpu
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=on):
            loss: torch.Tensor = self._script.parallel(
                input_ids=ids, labels=ids, use_cache=False
            ).loss
        return loss

    def close(self) -> None:
        self._script.close()
        self.model.get_base_model().gradient_checkpointing_disable()
