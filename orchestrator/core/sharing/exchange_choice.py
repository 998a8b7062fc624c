"""What nodes without collectives between them exchange, decided by what it costs. Pure.

Sums of gradients are exact, and every step waits for them: the training is that with collectives,
only longer. Averages of changes travel while nodes go on training, and end at another loss. So
gradients are summed where their exchange costs little time beside a step's own, or little in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.sharing.rounds import Exchanged, Offered

FEED_CHOICE = 0
# Of a step's time. In local rounds on text, waiting for averages took 4 to 5 % of the time, so what
# gradients cost more than averages is about a fifth of the training, and is paid for exactness.
MOST_OF_A_STEP = 0.25
# Seconds over all steps that are left: as long as it takes to begin a run or two.
MOST_IN_ALL_S = 60.0
VALUE_BYTES = 4  # gradients travel as float32


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTrial:
    """What a node measured before it begins: ``step_s``, what its rows of a step take it, in
    seconds; ``steps``, how many it has left; ``values`` in its gradient. ``file``: a sample of
    these, at most as large as all of them, on which the coordinator measures the way.
    """

    step_s: float
    steps: int
    values: int
    file: Offered


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeChoice:
    """``exchange_s``: what an exchange of a step's gradients takes; ``step_s``: the slowest node's
    step without it.
    """

    exchanged: Exchanged
    exchange_s: float
    step_s: float


def choose_exchange(trials: Sequence[NodeTrial], sample_s: float) -> ExchangeChoice:
    """By the nodes' ``trials``, at least one, whose samples took ``sample_s`` seconds from all
    nodes to the coordinator and back to all. A gradient that is so many times larger is taken to
    need so many times as long.
    """
    step_s = max(trial.step_s for trial in trials)
    steps = max(trial.steps for trial in trials)
    times = max(VALUE_BYTES * trial.values / trial.file.bytes for trial in trials)
    exchange_s = sample_s * max(1.0, times)
    cheap = exchange_s <= MOST_OF_A_STEP * step_s or exchange_s * steps <= MOST_IN_ALL_S
    return ExchangeChoice(
        exchanged=Exchanged.GRADIENTS if cheap else Exchanged.CHANGES,
        exchange_s=exchange_s,
        step_s=step_s,
    )
