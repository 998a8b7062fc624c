"""Rounds are interleaved, and what is finished is reported when the rest is stopped."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
from bench_lib.base import command, rounds
from bench_lib.base.command import bounded, reported
from bench_lib.base.errors import BenchError, Stopped
from bench_lib.base.rounds import Case, Contender, Scenario, only_cases, perform
from bench_lib.base.stats import Sample, Samples


class Desk:
    """Two contenders that write down who ran; the one called `ours` is stopped at `stop_at`."""

    def __init__(self, stop_at: int = 10**6) -> None:
        self.ran: list[str] = []
        self.prepared: list[str] = []
        self._stop_at = stop_at
        contenders = [
            Contender(
                name=name,
                run=lambda name=name: self._run(name),
                prepare=lambda name=name: self.prepared.append(name),
            )
            for name in "ab"
        ]
        case = Case(name="case", contenders=contenders)
        self.scenario = Scenario(name="s", title="s", ours="a", cases=[case], targets=[])

    def _run(self, name: str) -> Sample:
        self.ran.append(name)
        if len(self.ran) == self._stop_at:
            raise Stopped(15)
        return Sample(wall_s=float(len(self.ran)), cpu_s=0.0)


def counts(samples: Samples) -> list[int]:
    return [len(taken) for taken in samples["case"].values()]


def test_each_round_begins_with_another_one_and_the_first_is_not_counted() -> None:
    desk = Desk()
    assert [counts(samples) for samples in perform(desk.scenario, 3, lambda: None)] == [
        [1, 1],
        [2, 2],
        [3, 3],
    ]
    assert desk.ran == desk.prepared == list("abbaabba")


def test_a_round_that_was_cut_counts_for_nobody() -> None:
    seen: list[Samples] = []
    with pytest.raises(Stopped):
        seen.extend(perform(Desk(stop_at=8).scenario, 5, lambda: None))
    assert counts(seen[-1]) == [2, 2]


def test_time_left_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    clock = iter(range(0, 100, 30))
    monkeypatch.setattr(rounds, "say", said.append)
    monkeypatch.setattr(rounds.time, "monotonic", lambda: float(next(clock)))
    list(perform(Desk().scenario, 1, lambda: None))
    assert said[0] == "s: warm-up, 30.0 s; about 30 s for the other 1"


@pytest.mark.parametrize("error", [Stopped(2), BenchError("a limit"), None])
@pytest.mark.parametrize("finished", [[], ["a round"]])
def test_what_is_finished_is_reported_once(
    error: BaseException | None, finished: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "say", lambda _: None)
    reports: list[list[str]] = []

    def measure() -> None:
        with reported(finished, lambda: reports.append(finished)):
            if error is not None:
                raise error

    if error is None:
        measure()
        assert len(reports) == 1
        return
    with pytest.raises(type(error)):
        measure()
    assert len(reports) == len(finished)


def test_numbers_of_the_command_line_are_bounded() -> None:
    assert bounded(1, 5)("3") == 3
    for text in ("0", "6", "x", "2.5"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected 1 to 5"):
            bounded(1, 5)(text)


def test_machines_get_what_people_get(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    command.write_json(file, {"cores": "2"}, rounds=[1, 2])
    assert '"schema_version": 1' in file.read_text()
    command.write_json(None, {}, rounds=[])


def test_cases_can_be_chosen_and_an_unknown_one_is_named() -> None:
    scenario = Desk().scenario
    other = replace(scenario.cases[0], name="other")
    both = replace(scenario, cases=[*scenario.cases, other])
    assert only_cases(both, None) is both
    assert [case.name for case in only_cases(both, ["other"]).cases] == ["other"]
    with pytest.raises(BenchError, match="no case 'odd'; it has: case, other"):
        only_cases(both, ["odd"])
