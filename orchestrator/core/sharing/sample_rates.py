"""How fast divisible work went: together, each node by itself, and how well the two agree. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.sharing.leases import Worker

MAX_AMOUNTS = 64
SAMPLES = "samples"
DIVISION = "division_efficiency"
PERCENTILES = (50, 90, 99)


class _Done:
    """What one worker has done: ``at_busy`` is how much it was when it had been busy that long."""

    __slots__ = ("amounts", "at_busy", "busy_s")

    def __init__(self) -> None:
        self.amounts: dict[str, float] = {}
        self.at_busy: dict[str, float] = {}
        self.busy_s = 0.0

    def rate(self, name: str) -> float:
        return self.at_busy.get(name, 0.0) / self.busy_s if self.busy_s else 0.0


@dataclass(frozen=True, slots=True)
class Rate:
    """A figure to report."""

    name: str
    value: float
    unit: str


class SampleRates:
    """The account of one attempt. Times are seconds on one monotonic clock."""

    def __init__(self) -> None:
        self.began: float | None = None
        self._ended = 0.0
        self._accepted: dict[str, float] = {}
        self._workers: dict[Worker, _Done] = {}

    def count_output(
        self, worker: Worker, found: Mapping[str, float], *, accepted: bool, now: float
    ) -> None:
        """An output came in with the amounts that were ``found`` in it; one that another worker was
        first with counts for its own rate.
        """
        amounts = {SAMPLES: 1.0, **found}
        done = self._workers.setdefault(worker, _Done()).amounts
        for name, amount in amounts.items():
            _add_amount(done, name, amount)
            if accepted:
                _add_amount(self._accepted, name, amount)
        if accepted:
            self._ended = now

    def count_busy(self, worker: Worker, busy_s: float) -> None:
        """A worker has been busy for so long in all, with all that it has answered so far."""
        done = self._workers.setdefault(worker, _Done())
        if busy_s > done.busy_s:
            done.busy_s, done.at_busy = busy_s, dict(done.amounts)

    def per_s(self) -> float:
        """Samples per second, all together, so far."""
        return self._accepted.get(SAMPLES, 0.0) / self._elapsed if self._elapsed else 0.0

    @property
    def _elapsed(self) -> float:
        return max(0.0, self._ended - self.began) if self.began is not None else 0.0

    def figures(self, latencies: Sequence[float]) -> Iterator[Rate]:
        """Everything worth reporting. ``latencies`` of all accepted outputs, sorted."""
        if self._elapsed:
            for name, amount in self._accepted.items():
                yield Rate(f"{name}_per_s", amount / self._elapsed, f"{name}/s")
        solo = self._solo()
        for (node, name), rate in solo.items():
            yield Rate(f"{name}_per_s.{node}", rate, f"{name}/s")
        alone = sum(rate for (_, name), rate in solo.items() if name == SAMPLES)
        if alone and self._elapsed:
            yield Rate(DIVISION, self.per_s() / alone, "fraction")
        for percent in PERCENTILES if latencies else ():
            index = min(len(latencies) - 1, percent * len(latencies) // 100)
            yield Rate(f"latency_p{percent}", latencies[index], "s")

    def _solo(self) -> Mapping[tuple[str, str], float]:
        """What each node can do by itself: the sum of its workers' rates while they were busy."""
        solo: dict[tuple[str, str], float] = {}
        for (node, _), done in self._workers.items():
            for name in done.at_busy:
                solo[node, name] = solo.get((node, name), 0.0) + done.rate(name)
        return solo


def _add_amount(amounts: dict[str, float], name: str, amount: float) -> None:
    if name in amounts or len(amounts) < MAX_AMOUNTS:
        amounts[name] = amounts.get(name, 0.0) + amount
