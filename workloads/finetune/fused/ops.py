"""The element-wise operations: Triton's where the tensors are on a GPU, plain torch elsewhere."""

from __future__ import annotations

from types import ModuleType

import torch

from . import reference


def operations(device: torch.device) -> ModuleType:
    """The module with the operations that `reference` describes, for tensors on `device`."""
    if device.type != "cuda":
        return reference
    from . import kernels  # needs Triton, which only CUDA builds of torch bring

    return kernels
