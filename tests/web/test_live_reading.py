"""Logs and series are followed in bounded memory, whatever ranks write."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from orchestrator.adapters.report.drawing.charts import MAX_CHARTS, MAX_LINES, MAX_POINTS
from orchestrator.adapters.store.metric_series import Point
from orchestrator.adapters.store.run_list import write_result
from orchestrator.adapters.web.runs import live_log, live_runs, run_follower
from orchestrator.adapters.web.runs.live_curves import DRAWN_POINTS, LiveCurves
from orchestrator.adapters.web.runs.live_log import BEHIND_BYTES, LiveLog
from orchestrator.adapters.web.runs.live_runs import LiveRuns
from orchestrator.adapters.web.runs.run_follower import RunFollower
from orchestrator.core.base.outcome import Signalled
from orchestrator.core.run.events import RankExited
from orchestrator.core.verdict.result import Status
from orchestrator.parsing.replies.display_text import DISPLAY_LIMIT
from tests.cli.runs_on_disk import begin, events_of, finished
from tests.time_limits import scaled

KILLED = RankExited(node="a", rank=0, outcome=Signalled(9), at=1.0, last_line="boom")


def append(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(content)


def test_lines_are_followed_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_log, "LISTED_S", 0.0)
    folder = begin(tmp_path)
    log, path = LiveLog(folder), folder.log("a", "rank-0.out")
    assert log.read() == []

    append(path, b"one\ntw")
    assert [line.text for line in log.read()] == ["one"]
    append(path, b"o\n\x1b[31m<script>three\x1b[0m\n")
    append(folder.log("b", "rank-1.err"), b"other\n")

    assert [(line.source, line.stream, line.text) for line in log.read()] == [
        ("a/0", "out", "two"),
        ("a/0", "out", "<script>three"),
        ("b/1", "err", "other"),
    ]
    assert log.read() == []


def test_a_line_of_ten_megabytes_is_one_short_line(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    path = folder.log("a", "rank-0.out")
    append(path, b"first\n")
    log = LiveLog(folder)
    texts = [line.text for line in log.read()]

    for _ in range(200):
        append(path, b"x" * 50_000)
        texts += [line.text for line in log.read()]
    append(path, b"\nlast\n")
    texts += [line.text for line in log.read()] + [line.text for line in log.read()]

    assert (texts[0], texts[-1], len(texts)) == ("first", "last", 3)
    assert len(texts[1]) < DISPLAY_LIMIT + 100


def test_what_is_far_behind_is_left_out_and_said(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    path = folder.log("a", "rank-0.out")
    append(path, b"first\n")
    log = LiveLog(folder)
    log.read()

    append(path, b"y" * 99 + b"\n" * 1)
    append(path, (b"z" * 99 + b"\n") * (2 * BEHIND_BYTES // 100))
    append(path, b"the end\n")
    lines = log.read()

    assert lines[0].stream == "note"
    assert "not shown" in lines[0].text
    assert lines[-1].text == "the end"


def test_curves_are_bounded_and_keep_spikes() -> None:
    curves = LiveCurves()
    curves.add(point("loss", 0, step, 100.0 if step == 7777 else 1.0) for step in range(20_000))
    curves.add(point("rate", rank, step, 1.0) for rank in range(20) for step in range(3))
    curves.add(point(f"other{n}", 0, step, 1.0) for n in range(100) for step in range(2))
    curves.add([point("loss", 0, 20_001, float("nan"))])
    charts = {chart.name: chart for chart in curves.charts()}

    assert curves.last_step == 19_999
    assert len(charts) == MAX_CHARTS
    assert (len(charts["rate"].lines), charts["rate"].hidden) == (MAX_LINES, 20 - MAX_LINES)
    drawn = [line.points.split() for chart in charts.values() for line in chart.lines]
    assert max(map(len, drawn)) <= MAX_POINTS + 2
    assert sum(map(len, drawn)) <= DRAWN_POINTS + len(drawn) * 2
    assert any(place.endswith(",12.0") for place in charts["loss"].lines[0].points.split())


def point(name: str, rank: int, step: int, value: float) -> Point:
    return Point("a", rank, name, value, "", step, 0.0)


def catch_up(follower: RunFollower) -> bool:
    """Read all that is there, in however many turns; True when the view changed."""
    changed, _ = follower.advance()
    while follower.behind:
        changed |= follower.advance()[0]
    return changed


def test_a_run_is_followed_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view of a run that is there already is that of one that was followed from its start,
    however little is read at once.
    """
    monkeypatch.setattr(run_follower, "TURN_S", 0.0)
    whole = finished(tmp_path / "one", KILLED)
    follower = RunFollower(whole)
    catch_up(follower)
    events, result = events_of(KILLED)

    folder = begin(tmp_path / "two")
    slow = RunFollower(folder)
    for line in whole.journal.read_bytes().splitlines(keepends=True):
        append(folder.journal, line[:20])
        catch_up(slow)
        append(folder.journal, line[20:])
        catch_up(slow)
    before = slow.view()
    for line in whole.metrics.read_bytes().splitlines(keepends=True):
        append(folder.metrics, line)
        catch_up(slow)
    write_result(folder, result)
    changed = catch_up(slow)

    assert len(events) > 10
    assert before.failure is not None
    assert "SIGKILL" in before.failure.cause
    assert before.endings[0].last_line == "boom"
    assert before.rank_counts == "1 failed, 1 done"
    assert changed
    assert slow.over
    for part in ("state", "result", "charts", "seconds", "nodes", "ladder", "failure", "phases"):
        assert getattr(slow.view(), part) == getattr(follower.view(), part), part
    assert slow.view().summary.state == Status.FAILED


def test_nothing_new_changes_nothing(tmp_path: Path) -> None:
    follower = RunFollower(finished(tmp_path))
    catch_up(follower)

    assert follower.advance() == (False, [])


def test_only_so_many_runs_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one is read once, and its page says what it was then; without readers none is."""
    monkeypatch.setattr(live_runs, "MAX_FOLLOWED", 1)
    monkeypatch.setattr(live_runs, "LINGER_S", 0.0)
    monkeypatch.setattr(live_runs, "POLL_S", 0.0)
    folders = [begin(tmp_path, name) for name in ("r1", "r2")]

    async def open_both() -> None:
        runs = LiveRuns(lambda view: {"head": view.summary.run_id}, lambda _: ())
        first = await runs.open(folders[0])
        with first.reading():
            second = await runs.open(folders[1])
            assert [run.feed.parts["head"] for run in (first, second)] == ["r1", "r2"]
            assert [runs.follows(run) for run in (first, second)] == [True, False]
            assert await runs.open(folders[0]) is first
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=scaled(30))
        assert not runs.follows(first)

    asyncio.run(open_both())


@pytest.mark.parametrize("damage", [b"{", b"{}\n", b'{"seq": 0, "t": 0, "event": {"type": "?"}}\n'])
def test_a_damaged_folder_is_shown_as_far_as_it_can_be(tmp_path: Path, damage: bytes) -> None:
    folder = begin(tmp_path)
    folder.journal.write_bytes(damage)
    folder.metrics.write_text(json.dumps(asdict(point("loss", 0, 1, 2.0))) + "\nnonsense\n")
    folder.result.write_bytes(b"[]")
    follower = RunFollower(folder)
    follower.advance()

    assert follower.view().trouble
    assert follower.view().last_step == 1
