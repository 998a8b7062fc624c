"""LoadGen's process by itself: it ends with whoever started it, and what it says is read."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.loadgen.load_plan import plan_test
from orchestrator.adapters.loadgen.process import LoadGenProcess
from orchestrator.core.sharing.load_protocol import Flushed, GeneratorGone, Issued, LoadEnded
from orchestrator.parsing.replies.load.loadgen_logs import read_performance
from orchestrator.parsing.replies.load.loadgen_records import (
    LoadGenRecord,
    SettingsRead,
    parse_loadgen_record,
)
from tests.loadgen.terms import SHORT
from tests.time_limits import scaled

pytestmark = pytest.mark.processes
pytest.importorskip("mlperf_loadgen", reason="hardware: LoadGen has no wheel for this machine")

QUICK = replace(SHORT, target_qps=200.0)
Said = LoadGenRecord | GeneratorGone


class Talk:
    """A process, and what it says, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._news = asyncio.Event()
        self._said: list[Said] = []
        self.process: LoadGenProcess

    async def begin(self) -> None:
        self.process = await LoadGenProcess.start(self.folder, self._news.set)

    async def end(self) -> GeneratorGone:
        """The last that is heard of it."""
        while not isinstance(said := await self.next(), GeneratorGone):
            pass
        return said

    async def next(self) -> Said:
        async with asyncio.timeout(scaled(20)):
            while not self._said:
                await self._news.wait()
                self._news.clear()
                self._said += self.process.take()
        return self._said.pop(0)


async def test_a_second_answer_shows_what_loadgen_does_with_it(tmp_path: Path) -> None:
    """It counts it, keeps VALID, and the log has an error: why `load_machine` lets none through,
    and why the verdict looks for errors.
    """
    talk = Talk(tmp_path)
    await talk.begin()
    plan = plan_test(QUICK, 20, 0.0)
    talk.process.send({**plan.command(), "overrides": {**plan.overrides, "min_duration_ms": 100}})
    assert isinstance(await talk.next(), SettingsRead)
    talk.process.send({"type": "go"})
    answered = 0
    while isinstance(said := await talk.next(), (Issued, Flushed)):
        if isinstance(said, Issued):
            ids = [id for id, _ in said.queries]
            talk.process.tell_begun(ids)
            talk.process.tell_answered([(id, 3, b"") for id in ids])
            if not answered:
                talk.process.tell_answered([(ids[0], 3, b"")])
            answered += len(ids)
    assert said == LoadEnded()
    await talk.end()
    await talk.process.close()

    summary = (tmp_path / "mlperf_log_summary.txt").read_text()
    verdict = read_performance(summary, (tmp_path / "mlperf_log_detail.txt").read_text())
    assert answered >= 64
    assert "Result is : VALID" in summary
    assert "twice" in verdict.invalid


async def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """The end of its input is the end of the test, whatever LoadGen waits for."""
    talk = Talk(tmp_path)
    await talk.begin()
    talk.process.send(plan_test(QUICK, 20, 0.0).command())
    assert isinstance(await talk.next(), SettingsRead)
    talk.process.send({"type": "go"})
    assert isinstance(await talk.next(), Issued)
    talk.process.send({"type": "answered"})  # a broken command ends it, too
    gone = await talk.end()

    assert "its process ended with 1" in gone.reason
    await talk.process.close()


async def test_a_loadgen_that_cannot_begin_says_why(tmp_path: Path) -> None:
    talk = Talk(tmp_path)
    await talk.begin()
    talk.process.send({**plan_test(QUICK, 20, 0.0).command(), "scenario": "Sideways"})
    gone = await talk.end()

    assert "Sideways" in gone.reason
    await talk.process.close()


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"[]", b'{"type": "issue", "queries": [[1]]}', b'{"type": "issue"}', b"\xff",
     b'{"type": "issue", "queries": [[1, -1]]}', b'{"type": "issue", "queries": [["1", 2]]}'],
)  # fmt: skip
def test_a_line_that_says_nothing_ends_the_test(line: bytes) -> None:
    assert isinstance(parse_loadgen_record(line), GeneratorGone)
