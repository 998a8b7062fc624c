"""Linear layers that multiply in fp8 (e4m3), one scale for each row of weights and activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import linear

LARGEST = torch.finfo(torch.float8_e4m3fn).max
SMALLEST_SCALE = 1e-12
# Its rounding is what the answer is chosen by, and it is one product of many.
KEPT = ("lm_head",)


class Fp8Weight:
    """Stands in a linear layer where its weight was: ``torch.nn.functional.linear`` asks it.

    Scales are the largest magnitude of a row by that of e4m3; activations get theirs at each call.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.values, self.scale = quantized_rows(weight)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if function is not linear and getattr(function, "__name__", "") != "linear":
            return NotImplemented
        inputs, weight, *bias = (*args, *(kwargs or {}).values())
        rows, scale = quantized_rows(inputs.reshape(-1, inputs.shape[-1]))
        product = torch._scaled_mm(  # noqa: SLF001 - torch's name for its fp8 product
            rows,
            weight.values.t(),
            scale_a=scale,
            scale_b=weight.scale.t(),
            out_dtype=torch.bfloat16,
        )
        product = product.to(inputs.dtype).reshape(*inputs.shape[:-1], -1)
        return product + bias[0] if bias and bias[0] is not None else product


def quantized_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``rows`` (n, k) in e4m3, and the scale (n, 1) that multiplies each back."""
    largest = rows.abs().amax(dim=1, keepdim=True).float()
    scale = (largest / LARGEST).clamp(min=SMALLEST_SCALE)
    return (rows / scale).to(torch.float8_e4m3fn), scale


def use_fp8(model: torch.nn.Module) -> int:
    """Replace the weight of every linear layer but the head's; of sharded layers this rank's part.
    One layer at a time is there twice. How many were replaced.
    """
    replaced = 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and not name.endswith(KEPT):
            weight = module.weight.detach()
            local = weight.to_local() if hasattr(weight, "to_local") else weight
            del module.weight
            module.weight = Fp8Weight(local)  # type: ignore[assignment]
            replaced += 1
    return replaced
