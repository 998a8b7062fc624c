"""How a schedule stands, as samples. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.core.detection.night_series import FigureState
from orchestrator.core.monitoring import kept_metrics as kept
from orchestrator.core.monitoring.metric import Sample
from orchestrator.core.nightly.nights import Night, NightState

WELL = frozenset({NightState.DONE, NightState.DEGRADED})
AHEAD = frozenset({NightState.DUE, NightState.QUEUED})


def schedule_samples(
    schedule: str, nights: Sequence[Night], *, next_due: float, figures: Iterable[str]
) -> Iterator[Sample]:
    """``nights`` oldest first; ``figures``: what detection says of each figure of the latest one.

    A night that is due and has not begun says nothing yet: the one before it does.
    """
    yield kept.NIGHT_NEXT.sample(next_due, schedule)
    told = [night for night in nights if night.state not in AHEAD] or list(nights)
    if told:
        yield from kept.NIGHT_STATE.state_samples(told[-1].state.value, schedule)
    well = [night.finished for night in nights if night.state in WELL and night.finished]
    if well:
        yield kept.NIGHT_LAST.sample(max(well), schedule)
    found = Counter(figures)
    for state in FigureState:
        yield kept.NIGHT_FIGURES.sample(found[state.value], schedule, state.value)
