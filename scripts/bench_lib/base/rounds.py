"""Interleaving: all contenders of a case in every round, each round beginning with another."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from .errors import BenchError
from .measure import Command
from .stats import Sample, Samples, Target, rotated

QUIET_S = 2.0


def nothing() -> None:
    """For what needs no preparation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to do the work; `prepare` puts things into the state that the case describes."""

    name: str
    run: Callable[[], Sample]
    prepare: Callable[[], None] = nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The same work for each contender; `prepare` runs once a round, before all of them."""

    name: str
    contenders: Sequence[Contender]
    prepare: Callable[[], None] = nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Cases that follow one another in every round; `ours` is the contender that is judged.

    `profile` is run under the profiler when a target is missed.
    """

    name: str
    title: str
    ours: str
    cases: Sequence[Case]
    targets: Sequence[Target]
    note: str = ""
    profile: Command | None = None
    repeats: int = 0  # at least so many


def only_cases(scenario: Scenario, names: Sequence[str] | None) -> Scenario:
    """With the cases called ``names`` alone, for who has not the time for all; None = with all.

    Raises BenchError for a name that no case has.
    """
    if names is None:
        return scenario
    known = [case.name for case in scenario.cases]
    if wrong := [name for name in names if name not in known]:
        raise BenchError(f"{scenario.name} has no case {wrong[0]!r}; it has: {', '.join(known)}")
    cases = [case for case in scenario.cases if case.name in names]
    targets = [target for target in scenario.targets if target.case in names]
    return replace(scenario, cases=cases, targets=targets)


def perform(
    scenario: Scenario, repeats: int, hosts_cpu_s: Callable[[], float | None]
) -> Iterator[Samples]:
    """One round to warm up, which is not counted, and `repeats` that are: after each of these, all
    samples of finished rounds.
    """
    finished: dict[str, dict[str, tuple[Sample, ...]]] = {
        case.name: {contender.name: () for contender in case.contenders} for case in scenario.cases
    }
    for number in range(repeats + 1):
        started = time.monotonic()
        taken = {case.name: _round_of(case, number, hosts_cpu_s) for case in scenario.cases}
        took_s = time.monotonic() - started
        if took_s > QUIET_S or number in (0, repeats):
            say_round(scenario.name, number, repeats, took_s)
        if number:
            finished = {
                case: {name: (*before, taken[case][name]) for name, before in samples.items()}
                for case, samples in finished.items()
            }
            yield finished


def say_round(name: str, number: int, repeats: int, took_s: float) -> None:
    """A round is over, of which number 0 warms up, and how long the rest takes."""
    what = f"round {number} of {repeats}" if number else "warm-up"
    left_s = (repeats - number) * took_s
    left = f"; about {left_s:.0f} s for the other {repeats - number}" if left_s else ""
    say(f"{name}: {what}, {took_s:.1f} s{left}")


def _round_of(
    case: Case, number: int, hosts_cpu_s: Callable[[], float | None]
) -> dict[str, Sample]:
    """One sample of each contender, beginning with another one in every round."""
    case.prepare()
    taken = {}
    for contender in rotated(case.contenders, number):
        contender.prepare()
        before = hosts_cpu_s()
        sample = contender.run()
        after = hosts_cpu_s()
        if before is not None and after is not None:
            sample = replace(sample, hosts_cpu_s=after - before)
        taken[contender.name] = sample
    return taken


def say(text: str) -> None:
    """Progress, for people."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
