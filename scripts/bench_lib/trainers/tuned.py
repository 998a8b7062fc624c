"""The same libraries, with what is known to help: adapters in bf16 with fp32 masters in the
optimiser, each decoder layer compiled, no checkpointing, cuDNN's attention, and liger-kernel's
output layer and loss in one, without logits of all tokens.

Liger's norms, rotary embedding and SwiGLU are left to the compiler, which joins them with what is
beside them; `pieces=True` takes them instead of the compiler.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .work import LEARNING_RATE, Script, Work, in_parallel, trained

MICRO_BATCH = 2
BACKENDS = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


class MasterAdamW:
    """AdamW over fp32 copies of `parameters`, which get the rounded values after each step."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], *, fused: bool) -> None:
        self._rounded: list[torch.Tensor] = list(parameters)
        self._masters = [p.detach().float().requires_grad_() for p in self._rounded]
        self._inner = torch.optim.AdamW(
            self._masters, lr=LEARNING_RATE, weight_decay=0.0, fused=fused
        )
        self.param_groups: list[dict[str, Any]] = self._inner.param_groups

    @torch.no_grad()
    def step(self) -> None:
        for master, own in zip(self._masters, self._rounded, strict=True):
            assert own.grad is not None
            master.grad = own.grad.float()
        self._inner.step()
        torch._foreach_copy_(self._rounded, self._masters)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of both copies."""
        self._inner.zero_grad(set_to_none)
        for own in self._rounded:
            own.grad = None


class Tuned:
    """Raises `ImportError` where liger-kernel is not installed, on GPUs; without GPUs, where its
    kernels do not run, the loss is that of transformers.
    """

    def __init__(self, model: Any, work: Work, *, pieces: bool = False) -> None:
        self.work, self.model = work, model
        base = model.get_base_model()
        self._head_loss = _liger_loss(base, pieces=pieces) if work.on_gpu else None
        self.parameters = trained(model)
        self._exact = [p.dtype for p in self.parameters]
        for parameter in self.parameters:
            parameter.data = parameter.data.to(base.dtype)
        if not pieces:
            for layer in base.model.layers:
                layer.compile(dynamic=False)
        self.description = "liger's kernels" if pieces else "compiled layers, liger's loss"
        self.description += f", adapters in {base.dtype}, no checkpointing"
        parallel = in_parallel(_WithLoss(model, self._head_loss), work)
        optimiser = MasterAdamW(self.parameters, fused=work.on_gpu)
        self._script = Script(work, parallel, self.parameters, optimiser, MICRO_BATCH, parallel)
        model.train()

    def step(self, step: int) -> float:
        with sdpa_kernel(BACKENDS, set_priority=True):
            return self._script.step(step)

    def close(self) -> None:
        self._script.close()
        for parameter, kind in zip(self.parameters, self._exact, strict=True):
            parameter.data = parameter.data.to(kind)
        for layer in self.model.get_base_model().model.layers:
            layer._compiled_call_impl = None  # noqa: SLF001 - compile() has no way back
        torch._dynamo.reset()  # noqa: SLF001 - it documents it for this use


class _WithLoss(torch.nn.Module):
    """Token ids [n, length] to the mean loss, for DDP to see as one pass."""

    def __init__(self, model: Any, head_loss: Any) -> None:
        super().__init__()
        self.model, self._head_loss = model, head_loss

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if self._head_loss is None:
            plain: torch.Tensor = self.model(input_ids=ids, labels=ids, use_cache=False).loss
            return plain
        base = self.model.get_base_model()
        hidden = base.model(input_ids=ids, use_cache=False).last_hidden_state
        before = hidden[:, :-1].reshape(-1, hidden.shape[-1])
        loss: torch.Tensor = self._head_loss(base.lm_head.weight, before, ids[:, 1:].flatten())
        return loss


def _liger_loss(base: Any, *, pieces: bool) -> Any:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    if pieces:
        from liger_kernel.transformers.monkey_patch import apply_liger_kernel_to_qwen2

        apply_liger_kernel_to_qwen2(
            model=base, fused_linear_cross_entropy=False, cross_entropy=False
        )
    return LigerFusedLinearCrossEntropyLoss()
