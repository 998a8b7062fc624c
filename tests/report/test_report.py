"""Reports: complete, offline, and safe whatever names and logs hold."""

from __future__ import annotations

import json
import math
import re
from contextlib import AbstractContextManager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.adapters.history.database import HistoryUnavailable, Session
from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.history.store import HistoryStore
from orchestrator.adapters.report import finished_run, publish
from orchestrator.adapters.report.document import load_report
from orchestrator.adapters.report.drawing.charts import (
    MAX_LINES,
    MAX_POINTS,
    draw_charts,
    thin_curve,
)
from orchestrator.adapters.report.finished_run import Exporter, FinishedRun
from orchestrator.adapters.report.html_report import render_html
from orchestrator.adapters.report.markdown import escape_markdown, render_markdown
from orchestrator.adapters.report.publish import publish_run
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.metric_series import Series
from orchestrator.adapters.store.run_list import read_result
from orchestrator.core.base.codec import to_json
from orchestrator.core.base.command import Secret
from orchestrator.core.base.errors import ExitCode
from orchestrator.core.history.run_record import RunQuery
from orchestrator.core.model.plan import Variable
from orchestrator.core.verdict.result import (
    FailureResult,
    MetricResult,
    NodeResult,
    Result,
    Status,
    Verdict,
)
from orchestrator.core.verdict.verdict import conclude_run
from tests.core.world import World, request

EVIL = "<script>alert('x')</script>\u202e|`**[a](javascript:b)\n\"quoted\"&"


class Page(HTMLParser):
    """Collects elements, addresses and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"href", "src"}]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = Layout(tmp_path / "home").run("r1")
    folder.create()
    return folder


def finished(folder: RunFolder) -> Result:
    """A real run of two nodes with a plan, a loss curve, an artifact and a log."""
    world = World(request("a", "b"))
    state = world.run()
    assert state.plan is not None
    first = state.plan.nodes[0]
    secret = Variable(name="TOKEN", value=Secret("hunter2"), origin="user", reason="set")
    nodes = (replace(first, env=(*first.env, secret)), *state.plan.nodes[1:])
    plan = replace(state.plan, nodes=nodes)
    folder.plan.write_text(json.dumps(to_json(plan)))
    points = [
        {"node": "a", "rank": 0, "name": "loss", "value": 3 / (n + 1), "unit": "nats", "step": n}
        for n in range(50)
    ]
    folder.metrics.write_text("".join(json.dumps({**p, "t": 1.0}) + "\n" for p in points))
    artifact = folder.node_artifacts("a") / "adapter" / "weights.bin"
    artifact.parent.mkdir(parents=True)
    artifact.write_bytes(b"123")
    folder.node_logs("a").mkdir()
    folder.log("a", "rank-0.out").write_bytes(b"hello")
    metrics = {"loss": MetricResult(value=0.06, unit="nats", verdict=Verdict.PASS, max=0.5)}
    result = conclude_run(state, timings={"connect": 0.25, "watch": 3.0}, report="")
    return replace(result, metrics=metrics)


def test_html_holds_everything_and_needs_nothing_else(folder: RunFolder) -> None:
    """Status, figures, a drawn curve, nodes, plan and files; every address is inside the folder."""
    page = Page(render_html(load_report(folder, finished(folder))))
    for words in ["job on test: succeeded", "0.06 nats", "at most 0.5", "loss", "3.25 s"]:
        assert words in page.text
    assert "--master-port" in page.text
    assert "adapter/weights.bin" in page.text
    assert page.tags.count("svg") == 1
    assert page.tags.count("polyline") == 1
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert page.addresses
    for address in page.addresses:
        assert (folder.path / address).exists() or address in {"result.json", "journal.jsonl"}


def test_secrets_are_in_no_report(folder: RunFolder) -> None:
    """A secret variable shows as ***."""
    report = load_report(folder, finished(folder))
    assert "hunter2" not in render_html(report) + render_markdown(report)
    assert "***" in render_html(report)


def hostile(folder: RunFolder) -> Result:
    result = finished(folder)
    path = folder.artifacts / 'a"<script>x</script>' / "javascript:alert(1)"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    with folder.metrics.open("a") as file:
        for step in range(2):
            point = {"node": EVIL, "rank": 0, "name": EVIL, "value": 1.0, "unit": EVIL, "t": 1.0}
            file.write(json.dumps({**point, "step": step}) + "\n")
    return replace(
        result,
        status=Status.FAILED,
        workload=EVIL,
        cluster=EVIL,
        nodes=(NodeResult(name=EVIL, state=EVIL, reason=EVIL),),
        metrics={EVIL: MetricResult(value=1.0, unit=EVIL)},
        timings={EVIL: 1.0},
        warnings=(EVIL,),
        failure=FailureResult(id=EVIL, cause=EVIL, node=EVIL, remedy=EVIL, last_line=EVIL),
    )


def test_html_escapes_everything(folder: RunFolder) -> None:
    """Script tags in names, log lines, units and file names stay text; paths stay paths."""
    text = render_html(load_report(folder, hostile(folder)))
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text
    assert "\u202e" not in text
    assert page.text.count("<script>alert('x')</script>") >= 10
    assert all(not address.startswith("javascript:") for address in page.addresses)


def test_markdown_escapes_everything(folder: RunFolder) -> None:
    """No tag, no link, no table cell and no emphasis comes from foreign text."""
    text = render_markdown(load_report(folder, hostile(folder)))
    assert "<script" not in text
    assert "[a](" not in text.replace("\\[a\\](", "")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = {len(re.split(r"(?<!\\)\|", row)) for row in rows}
    assert cells <= {4, 5, 6}
    assert re.search(r"^> &lt;script&gt;", text, re.MULTILINE)


@given(st.text(max_size=60))
def test_escaped_markdown_is_one_line(text: str) -> None:
    """Whatever the text, it cannot end its line or open a tag."""
    escaped = escape_markdown(text)
    assert "<" not in escaped
    assert len(escaped.splitlines()) <= 1


def test_a_refused_run_has_a_report(folder: RunFolder) -> None:
    """Without plan, series and files the report still tells the failure."""
    result = Result(
        run_id="r1",
        status=Status.FAILED,
        exit_code=ExitCode.PREFLIGHT,
        cluster="c",
        workload="w",
        launcher="auto",
        world_size=0,
        failure=FailureResult(id="OR-SSH-003", cause="b: no route", remedy="look"),
    )
    report = load_report(folder, result)
    assert "b: no route" in render_html(report)
    assert "OR-SSH-003" in render_markdown(report)


def test_a_damaged_plan_does_not_hide_the_result(folder: RunFolder) -> None:
    """The report leaves out what it cannot read."""
    result = finished(folder)
    for content in ["", "[]", '{"type": "Plan"}']:
        folder.plan.write_text(content)
        assert load_report(folder, result).plan is None


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=40))
@example([-1.7e308, -1.7e308])
@example([-1.7e308, 1.7e308])
@example([0.0, 5e-324])
@example([1.0, 1.0 + 2**-52])
def test_charts_stay_inside_their_frame(values: list[float]) -> None:
    """Any finite values, constant, tiny or huge, give finite points inside the view box."""
    series = Series("m", "u", "n", 0, tuple(enumerate(values)))
    (chart,) = draw_charts([series])
    for point in chart.lines[0].points.split():
        x, y = map(float, point.split(","))
        assert 0 <= x <= 720
        assert 0 <= y <= 260
    for tick in (*chart.x_ticks, *chart.y_ticks):
        assert math.isfinite(tick.at)
    assert len(chart.y_ticks) <= 12


def test_charts_are_bounded_and_keep_spikes() -> None:
    """Long curves are thinned without losing extremes; many ranks are counted, not drawn."""
    curve = tuple((n, 1000.0 if n == 5003 else float(n % 7)) for n in range(20_000))
    thinned = thin_curve(curve)
    assert len(thinned) <= MAX_POINTS + 2
    assert (5003, 1000.0) in thinned
    assert thinned[0] == curve[0]
    assert thinned[-1] == curve[-1]
    (chart,) = draw_charts([Series("m", "u", "n", rank, curve[:10]) for rank in range(64)])
    assert len(chart.lines) == MAX_LINES
    assert chart.hidden == 64 - MAX_LINES


def run_of(layout: Layout, folder: RunFolder, result: Result) -> FinishedRun:
    return FinishedRun(
        layout=layout, folder=folder, request=request("a", "b"), result=result, now=5.0
    )


def test_publish_finishes_a_run(folder: RunFolder) -> None:
    """Reports, result and a row of history; publishing again changes nothing."""
    layout = Layout(folder.path.parent.parent)
    result = finished(folder)
    for _ in range(2):
        assert publish_run(run_of(layout, folder, result)) == []
    assert read_result(folder) == result
    assert folder.report_html.read_text().startswith("<!doctype html>")
    assert folder.report_markdown.exists()
    (kept,) = open_history(layout).read_runs(RunQuery())
    assert kept.run_id == "r1"
    assert open_history(layout).read_result("r1") == result


def test_a_second_run_is_drawn_beside_the_first(folder: RunFolder) -> None:
    """In HTML and as a line of blocks in Markdown."""
    layout = Layout(folder.path.parent.parent)
    publish_run(run_of(layout, folder, finished(folder)))
    assert "Beside earlier runs" not in folder.report_html.read_text()
    second = layout.run("r2")
    second.create()
    result = replace(finished(second), run_id="r2")
    result = replace(result, metrics={"loss": replace(result.metrics["loss"], value=0.03)})

    assert publish_run(replace(run_of(layout, second, result), now=6.0)) == []

    page = Page(second.report_html.read_text())
    assert "Beside earlier runs" in page.text
    assert "dashed: median of 1 earlier run like this one" in page.text
    assert page.tags.count("svg") == 2
    assert "| loss | █▁ |" in second.report_markdown.read_text()


def test_a_broken_history_does_not_cost_the_result(folder: RunFolder) -> None:
    """What is secondary is told, not raised."""
    layout = Layout(folder.path.parent.parent)
    layout.history.write_bytes(b"this is no database" * 100)
    folder.report_html.mkdir()
    warnings = publish_run(run_of(layout, folder, finished(folder)))
    assert [warning.partition(" of ")[0] for warning in warnings] == ["HTML report", "history"]
    assert read_result(folder) is not None


def test_a_database_that_does_not_answer_is_waited_for_once(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports are made without it, and what is told is its own reason."""
    asked: list[str] = []

    class Silent:
        """Its timeout was waited for in vain."""

        where = "postgresql://history"

        def exists(self) -> bool:
            return True

        def reading(self) -> AbstractContextManager[Session]:
            asked.append("read")
            raise HistoryUnavailable("no answer in 10 s", id="OR-STORE-012")

        def writing(self) -> AbstractContextManager[Session]:
            asked.append("write")
            raise HistoryUnavailable("no answer in 10 s", id="OR-STORE-012")

    for module in (finished_run, publish):
        monkeypatch.setattr(module, "open_history", lambda _: HistoryStore(Silent()))

    (warning,) = publish_run(run_of(Layout(folder.path.parent.parent), folder, finished(folder)))

    assert warning.startswith("history of run r1 not written: no answer in 10 s")
    assert asked == ["read"]
    assert folder.report_html.exists()
    assert folder.report_markdown.exists()


def test_each_exporter_fails_by_itself(folder: RunFolder) -> None:
    """One that fails is named; those behind it do their work all the same."""
    done: list[str] = []

    def fail(run: FinishedRun) -> None:
        raise OSError(28, "No space left on device")

    exporters = (
        Exporter("mail", fail),
        Exporter("second", lambda run: done.append(run.result.run_id)),
    )
    run = run_of(Layout(folder.path.parent.parent), folder, finished(folder))
    assert publish_run(run, exporters) == [
        "mail of run r1 not written: [Errno 28] No space left on device"
    ]
    assert done == ["r1"]
    assert read_result(folder) == run.result
