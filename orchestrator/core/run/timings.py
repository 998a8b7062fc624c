"""How long a run was in each of its phases."""

from __future__ import annotations

from orchestrator.core.run.events import Phase


class Timings:
    """Seconds spent in each phase, and what is left of the present one's budget."""

    def __init__(self, now: float) -> None:
        self.seconds: dict[str, float] = {}
        self._phase = Phase.LOAD
        self._since = now

    @property
    def phase(self) -> Phase:
        """The present one."""
        return self._phase

    def enter(self, phase: Phase, now: float) -> None:
        """``phase`` is the present one from ``now`` on."""
        if phase is self._phase:
            return
        self._add(now)
        self._phase, self._since = phase, now

    def left(self, budget: float | None, now: float) -> float | None:
        """What is left of the present phase's ``budget``; None = no limit."""
        return None if budget is None else max(0.0, self._since + budget - now)

    def take_over(self, wall: float, now: float) -> None:
        """Another coordinator goes on at ``wall``, by the clock of what was read, from then on with
        the clock that says ``now``. Ranks may have gone on meanwhile: the time is the phase's.
        """
        if self._phase is not Phase.CONCLUDED:
            self._add(wall)
        self._since = now

    def _add(self, now: float) -> None:
        name = self._phase.value
        self.seconds[name] = round(self.seconds.get(name, 0.0) + max(0.0, now - self._since), 3)
