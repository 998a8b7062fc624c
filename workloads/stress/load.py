"""Products and sums over all ranks at the same time, each checked to the bit.

The same product of the same numbers on the same device gives the same bits, whatever else runs; a
sum of small whole numbers over ranks is exact. Anything else is silent corruption, and is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

import orchestrate_kit as kit
from orchestrate_models.devices import synchronize
from orchestrate_models.memory_fit import MemoryNeed
from orchestrate_models.ranks import Ranks

from .settings import Settings

# Values of the summed message: whole numbers below this, so that sums are exact in float32.
PERIOD = 251
MAX_NAMED = 16
# Products that run beside one sum: at 8192 x 8192 and 1 GiB both take about as long on an H200.
PRODUCTS_OF_SUM = 4


@dataclass(frozen=True, kw_only=True)
class WrongElement:
    """``position``: row and column of a product, or the place in a message."""

    what: str
    position: tuple[int, ...]
    expected: float
    found: float


@dataclass(kw_only=True)
class Findings:
    """What one rank measured: a rate for each window, and what was wrong."""

    rates: list[float] = field(default_factory=list)
    products: int = 0
    wrong: int = 0
    named: list[WrongElement] = field(default_factory=list)
    seconds: float = 0.0


class Load:
    """One rank's operands: ``width`` x ``width`` products, and a message that is summed."""

    def __init__(self, settings: Settings, ranks: Ranks) -> None:
        device = ranks.device
        dtype = operand_type(device)
        generator = torch.Generator(device).manual_seed(settings.seed)
        size = (settings.width, settings.width)
        self._left, self._right = (
            torch.randn(size, device=device, dtype=dtype, generator=generator) for _ in range(2)
        )
        self.product = torch.mm(self._left, self._right)
        self._expected = self.product.clone()
        count = settings.message_mib * 2**20 // 4
        self._pattern = torch.arange(count, device=device, dtype=torch.float32) % PERIOD
        self.message = self._pattern.clone()
        self._ranks = ranks
        self.sums = 0

    def run(self, rounds: int) -> None:
        """In each round one sum over all ranks, and products beside it."""
        for _ in range(rounds):
            summing = self._begin_sum() if self._ranks.size > 1 else None
            for _ in range(PRODUCTS_OF_SUM):
                torch.mm(self._left, self._right, out=self.product)
            if summing is not None:
                summing.wait()
                self.sums += 1
                kit.collective("all-reduce", self.message_bytes)

    def _begin_sum(self) -> Any:
        torch.add(self._pattern, self._ranks.rank, out=self.message)
        return dist.all_reduce(self.message, async_op=True)

    def check(self, findings: Findings) -> None:
        """The newest product and the newest sum."""
        note_wrong("product", self.product, self._expected, findings)
        size = self._ranks.size
        if size > 1:
            expected = self._pattern * size + size * (size - 1) // 2
            note_wrong("sum over ranks", self.message, expected, findings)

    @property
    def message_bytes(self) -> int:
        return self.message.numel() * self.message.element_size()


def operand_type(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def memory_need(width: int, message_bytes: int, device: torch.device) -> MemoryNeed:
    """Operands, product and the expected one; pattern, message and the expected sum."""
    matrices = 4 * width**2 * operand_type(device).itemsize
    return MemoryNeed(parts={"matrices": matrices, "messages": 3 * message_bytes})


def note_wrong(what: str, found: torch.Tensor, expected: torch.Tensor, findings: Findings) -> None:
    """Count the elements that differ, and keep the first ones with their place. NaN differs."""
    places = (found != expected).nonzero()
    findings.wrong += len(places)
    for place in places[: max(0, MAX_NAMED - len(findings.named))].tolist():
        at = tuple(place)
        findings.named.append(
            WrongElement(
                what=what, position=at, expected=expected[at].item(), found=found[at].item()
            )
        )


def run_load(
    load: Load, settings: Settings, ranks: Ranks, report: Callable[[float], None]
) -> Findings:
    """Windows of about ``window_s`` for ``seconds``; all ranks do the same number of them, since
    they decide together whether another one follows.
    """
    rounds = _rounds_of_window(load, settings, ranks)
    each = PRODUCTS_OF_SUM * rounds
    findings = Findings()
    ranks.meet()
    began = time.monotonic()
    while True:
        start = time.perf_counter()
        load.run(rounds)
        synchronize(ranks.device)
        took = time.perf_counter() - start
        findings.rates.append(2 * settings.width**3 * each / took / 1e12)
        findings.products += each
        load.check(findings)
        findings.seconds = time.monotonic() - began
        report(findings.seconds)
        if max(ranks.gather(findings.seconds)) >= settings.seconds:
            return findings


def _rounds_of_window(load: Load, settings: Settings, ranks: Ranks) -> int:
    """As many as the slowest rank does in a window, timed in one that does not count."""
    load.run(1)
    synchronize(ranks.device)
    start = time.perf_counter()
    load.run(1)
    synchronize(ranks.device)
    once = time.perf_counter() - start
    return max(1, int(settings.window_s / max(ranks.gather(once))))
