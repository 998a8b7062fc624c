"""What nodes without collectives between them exchange, where `round_exchange=auto` leaves it to
what an exchange costs. The coordinator decides for all nodes: it measures the way of a sample.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..training.trainer import Trainer
from .compression import to_bytes
from .exchange import Exchange, packed

CHOICE = 0  # the number of the feed
SAMPLE = "trial.bin"
MOST_VALUES = 1_000_000  # in a sample: 4 MB


@dataclass(frozen=True, slots=True)
class ExchangeChoice:
    """`changes` or `gradients`, and why, in words; empty where it was set."""

    exchanged: str
    why: str = ""


def choose_exchange(trainer: Trainer, done: int) -> ExchangeChoice:
    """The setting, or what is best for the steps after `done`. All ranks of the node call it."""
    settings, world = trainer.settings, trainer.world
    if settings.round_exchange != "auto":
        return ExchangeChoice(settings.round_exchange)
    step_s = trainer.measure_step()
    told = b""
    if world.rank == 0:
        exchange = Exchange(Path(os.environ["ORCHESTRATE_EXCHANGE_DIR"]), world.number)
        _offer_sample(exchange, trainer, step_s, settings.steps - done)
        told = json.dumps(_answer(exchange, settings.collective_timeout)).encode()
        exchange.withdraw(SAMPLE)
    answer = json.loads(world.share(told, source=0))
    why = f"an exchange takes {answer['exchange_s']:.3g} s, a step {answer['step_s']:.3g} s"
    return ExchangeChoice(answer["exchanged"], why)


def _offer_sample(exchange: Exchange, trainer: Trainer, step_s: float, steps: int) -> None:
    buffer = trainer.buffer
    chunks = packed({"type": "sample"}, [to_bytes(buffer[:MOST_VALUES])])
    record = {"type": "trial", "step_s": step_s, "steps": steps, "values": len(buffer)}
    exchange.offer(SAMPLE, chunks, record)


def _answer(exchange: Exchange, timeout_s: float) -> dict[str, Any]:
    """The coordinator's, which comes behind the sample that it gives back."""
    while True:
        header = exchange.take(CHOICE, timeout_s).header
        if header["type"] == "exchange":
            return header
