"""Which experts the routers chose, counted without touching the experts.

A hook on each router keeps the tensor of chosen experts, which costs no kernel. When a pass is
over, one histogram counts all layers at once. Nothing waits for the device until counts are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from orchestrate_models.unusable import UnusableSettings

# A pass of more windows than this adds to the last one.
MAX_WINDOWS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedLayer:
    """``name`` as the model's modules are named."""

    name: str
    router: torch.nn.Module


def routed_layers(model: Any) -> list[RoutedLayer]:
    """The routers, as the model's class names them. Raises :class:`UnusableSettings` for none."""
    recorded = (getattr(model, "_can_record_outputs", None) or {}).get("router_logits")
    family: Any = getattr(recorded, "target_class", recorded)
    routers = model.named_modules() if family else ()
    found = [RoutedLayer(name=n, router=module) for n, module in routers if type(module) is family]
    if not found:
        raise UnusableSettings(f"{type(model).__name__} has no routers that transformers names")
    return found


class RouterTelemetry:
    """Counts of ``experts`` for each of ``layers``, in windows of one pass."""

    def __init__(self, layers: list[RoutedLayer], experts: int) -> None:
        self._layers = layers
        self._experts = experts
        self._chosen: list[torch.Tensor] = []
        self._windows: list[torch.Tensor] = []
        self._ends: list[float] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The hooks are there only inside."""
        handles = [layer.router.register_forward_hook(self._keep) for layer in self._layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, _router: torch.nn.Module, _inputs: Any, output: Any) -> None:
        self._chosen.append(chosen_experts(output))

    def end_window(self, at_s: float) -> None:
        """Count what came since the last one; ``at_s`` is when, in seconds since the start. Raises
        ``RuntimeError`` unless each layer's router was called equally often.
        """
        chosen, self._chosen = self._chosen, []
        if not chosen or len(chosen) % len(self._layers):
            raise RuntimeError(f"{len(chosen)} choices of {len(self._layers)} routers")
        counts = count_layers(chosen, len(self._layers), self._experts)
        if len(self._windows) < MAX_WINDOWS:
            self._windows.append(counts)
            self._ends.append(at_s)
        else:
            self._windows[-1] += counts
            self._ends[-1] = at_s

    def windows(self) -> list[tuple[float, list[list[int]]]]:
        """When each ended, and its counts by layer and expert. Waits for the device."""
        if not self._windows:
            return []
        return list(zip(self._ends, torch.stack(self._windows).tolist(), strict=True))


def chosen_experts(output: Any) -> torch.Tensor:
    """The whole numbers in a router's output, (tokens, k)."""
    parts = output if isinstance(output, tuple) else (output,)
    chosen: torch.Tensor = next(part for part in parts if not part.is_floating_point())
    return chosen


def count_layers(chosen: list[torch.Tensor], layers: int, experts: int) -> torch.Tensor:
    """(layers, experts): how often each expert was chosen. ``chosen`` goes through all layers in
    turn, any number of times.

    By a histogram of floats with bins of width 1: exact below 2^24 in a bin, and it does not ask
    the device for a maximum first, as ``bincount`` does.
    """
    stacked = torch.stack(chosen)
    first = torch.arange(len(chosen), device=stacked.device) % layers * experts
    places = (stacked.reshape(len(chosen), -1) + first[:, None]).float()
    bins = layers * experts
    found: torch.Tensor = torch.histc(places, bins=bins, min=0, max=bins).to(torch.int64)
    return found.reshape(layers, experts)
