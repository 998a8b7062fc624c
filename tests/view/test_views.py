"""Views of whole runs: what each shows, and that foreign text cannot harm any of them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.base.outcome import Signalled
from orchestrator.core.base.problem import Problem
from orchestrator.core.model.load import LoadTerms
from orchestrator.core.run.events import Event, Failed, Phase, RankExited, Resumed
from orchestrator.core.run.kit_reports import Progressed
from orchestrator.core.run.machine import step
from orchestrator.core.run.state import RunState, new_state
from orchestrator.core.verdict.node_status import NOT_STARTED, VERIFIED_CLEAN
from orchestrator.core.verdict.result import (
    NOT_LOOKED_AT,
    FailureResult,
    MetricResult,
    NodeResult,
    Result,
    RungResult,
    Status,
    Verdict,
)
from orchestrator.core.verdict.verdict import conclude_run
from orchestrator.engine.support.observer import Observer
from orchestrator.view.progress.json_lines import JsonLines
from orchestrator.view.progress.live import LiveView
from orchestrator.view.progress.narrate import narrate_event
from orchestrator.view.progress.plain_lines import PlainView
from orchestrator.view.result.failure_screen import MAX_LINES, failure_screen
from orchestrator.view.result.summary import stopped_text, summary_lines
from orchestrator.view.terminal import terminal
from orchestrator.view.terminal.terminal import LineWriter
from tests.core.world import World, request
from tests.loadgen.terms import SHORT

EVIL = "\x1b]0;owned\x07\x1b[2J<b>[red]\u202e\ud800\r\n"


class Screen(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def steps(world: World, *extra: Event) -> Iterator[tuple[float, Event, RunState]]:
    """Each event of a run with the state it led to, a second apart."""
    world.run(*extra)
    state = new_state(world.state.request)
    for at, (event, _) in enumerate(world.log):
        state, _ = step(state, event)
        yield float(at), event, state


def show(view: Observer, world: World, *extra: Event) -> Result:
    state = world.state
    for at, event, after in steps(world, *extra):
        view.on_event(at, event, after)
        state = after
    result = conclude_run(state, timings={"watch": 2.0}, report="/r/report.html")
    view.close(result)
    return result


def killed(node: str, rank: int, line: str = "boom") -> RankExited:
    return RankExited(node=node, rank=rank, outcome=Signalled(9), at=1.0, last_line=line)


def progress(node: str, rank: int, done: float) -> Progressed:
    return Progressed(
        node=node, rank=rank, done=done, total=60, unit="steps", fields={"loss": 0.53125}
    )


def plain(verbosity: int = 0) -> tuple[PlainView, io.StringIO]:
    out = io.StringIO()
    return PlainView(LineWriter(out), verbosity=verbosity, follow=True), out


def test_plain_tells_each_change_once() -> None:
    """A line per node and change, in order, without control sequences."""
    view, out = plain()
    show(view, World(request("a", "b")))
    text = out.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    told = [line.split("  ", 1)[1] for line in text.replace(" s  ", "  ").splitlines()]
    assert any("run r1: job on test (2 nodes)" in line for line in told)
    for node in "ab":
        for what in ["connected", "code sent 1 file", "1 rank up", "ended, no process left"]:
            assert sum(f"{node}: {what}" in line for line in told) == 1, (node, what)


def test_quiet_tells_only_problems() -> None:
    """A run without problems says nothing with -q."""
    view, out = plain(verbosity=-1)
    show(view, World(request("a")))
    assert out.getvalue() == ""
    view, out = plain(verbosity=-1)
    problem = Problem(id="OR-X-1", message="no way in")
    show(view, World(request("a")), Failed(node="a", phase=Phase.CONNECT, problem=problem))
    assert "a: no way in (OR-X-1)" in out.getvalue()


def test_many_nodes_are_not_listed_one_by_one() -> None:
    """Above twenty nodes the lines are about phases; a node that fails still has its own."""
    view, out = plain()
    names = [f"n{number}" for number in range(40)]
    show(view, World(request(*names)), killed("n3", 3))
    lines = out.getvalue().splitlines()
    assert len(lines) < 15
    assert sum("n3: rank 3 was killed by SIGKILL: boom" in line for line in lines) == 1


def test_progress_lines_are_bounded_in_rate() -> None:
    """A thousand reports in fifty seconds become a handful of lines; the last one is told."""
    view, out = plain()
    world = World(request("a"))
    *_, (_, _, state) = steps(world)
    for number in range(1001):
        view.on_event(number / 20, progress("a", 0, number * 0.06), state)
    told = [line for line in out.getvalue().splitlines() if "steps" in line]
    assert 4 <= len(told) <= 8
    assert "60/60 steps (100 %), 1.2 steps/s, loss 0.5312" in told[-1]


@pytest.mark.parametrize("count", [2, 40])
def test_live_shows_every_node_or_folds(count: int) -> None:
    """One row per node; above twenty nodes, counts by stage plus those in trouble."""
    screen = Screen()
    names = [f"node{number}" for number in range(count)]
    view = LiveView(screen, color=False)
    view._console.width = 100
    show(view, World(request(*names)), killed("node1", 1))
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).splitlines()[-count - 1 :]
    assert any(f"{count} nodes" in line for line in last)
    if count == 2:
        assert any("node0" in line for line in last)
    else:
        assert any(re.search(r"\d+ nodes +clean", line) for line in last)


def test_hostile_text_harms_no_view(tmp_path: Path) -> None:
    """Escapes in logs, reasons, units and last lines reach no terminal; JSON stays JSON."""

    def feed(view: Observer) -> Result:
        view.on_note(EVIL)
        view.on_log("a", "rank-0.out", EVIL.encode("utf-8", "surrogatepass") + b"\xff\n")
        evil = Progressed(node="a", rank=0, done=1, total=2, unit=EVIL, fields={EVIL: EVIL})
        problem = Problem(id=EVIL, message=EVIL, remedy=EVIL)
        failed = Failed(node="a", phase=Phase.WATCH, problem=problem)
        return show(view, World(request("a")), evil, killed("a", 0, EVIL), failed)

    view, out = plain(verbosity=1)
    result = feed(view)
    screen = [*failure_screen(result, tmp_path), *summary_lines(result)]
    assert "\x1b" not in out.getvalue() + "".join(screen)
    drawn = Screen()
    feed(LiveView(drawn, color=False, follow=True))
    assert "\x1b]0" not in drawn.getvalue()
    assert "\x1b[2J" not in drawn.getvalue()
    lines = io.StringIO()
    feed(JsonLines(LineWriter(lines), run_id="r1", follow=True))
    assert lines.getvalue().isascii()
    for line in lines.getvalue().splitlines():
        assert json.loads(line)["type"] == "event"


def test_json_lines_end_in_one_result() -> None:
    """Events first, then exactly one result with exactly the promised keys."""
    out = io.StringIO()
    view = JsonLines(LineWriter(out), run_id="r1")
    result = show(view, World(request("a", "b")))
    view.write_result(result)
    view.write_result(result)
    records = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [record["type"] for record in records[:-1]] == ["event"] * (len(records) - 1)
    assert records[0]["run"] == "r1"
    assert records[0]["event"] == {"type": "Begun"}
    keys = (
        "type schema_version run_id status exit_code cluster workload launcher ladder nodes "
        "world_size metrics outputs samples energy cost timings failure warnings report "
        "predictions notice begins_anew captures"
    )
    assert " ".join(records[-1]) == keys
    assert records[-1]["status"] == "succeeded"


def failed_result(**changes: object) -> Result:
    failure = FailureResult(
        id="OR-RUN-001",
        cause="rank 3 on gpu02 was killed by SIGKILL",
        node="gpu02",
        rank=3,
        remedy="orchestrate logs r1 --ranks 3",
        last_line="last words",
        log="logs/gpu02/rank-3.err",
        others=("gpu01/rank 0", "gpu01/rank 1"),
    )
    world = World(request("a"))
    result = conclude_run(world.run(), timings={}, report="")
    return replace(result, status=Status.FAILED, failure=replace(failure, **changes))  # type: ignore[arg-type]


def test_failure_screen_has_cause_evidence_and_next_step(tmp_path: Path) -> None:
    """First what failed, then its last lines from the log, last what to do and where the log is."""
    log = tmp_path / "logs" / "gpu02" / "rank-3.err"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x" * 40_000 + b"\nTraceback\n\n  boom \x1b[31mred\x1b[0m\n")
    lines = failure_screen(failed_result(), tmp_path)
    assert lines[0] == "FAILED: rank 3 on gpu02 was killed by SIGKILL (OR-RUN-001)"
    assert lines[1:3] == ["  | Traceback", "  |   boom red"]
    assert "  2 other ranks were stopped by orchestrate" in lines
    assert lines[-2:] == ["  next: orchestrate logs r1 --ranks 3", f"  log:  {log}"]


def test_failure_screen_stays_short_and_inside_its_folder(tmp_path: Path) -> None:
    """Fifteen lines at most whatever happened; a log outside the run is never opened."""
    (tmp_path / "secret").write_text("secret")
    result = failed_result(log="../secret", last_line="x" * 5000)
    result = replace(result, warnings=("w" * 1000,) * 50)
    lines = failure_screen(result, tmp_path / "run")
    assert len(lines) <= MAX_LINES
    assert max(map(len, lines)) < 300
    assert not any("secret" in line for line in lines)
    assert failure_screen(replace(result, failure=None), None) == []


def test_a_summary_has_the_verdict_first_and_no_figures_of_single_nodes() -> None:
    """What is left out is in the results and the report; a figure that fails is never left out."""
    free = MetricResult(value=3.0, unit="s")
    metrics = {
        "speed": free,
        "speed.vh1": free,
        "speed.vh9": free,
        "tail": replace(free, terminal=False),
        "late": replace(free, terminal=False, verdict=Verdict.FAIL, max=1.0),
    }
    node = NodeResult(name="vh1", state="used", ranks=1)
    result = replace(failed_result(), metrics=metrics, nodes=(node,))

    lines = summary_lines(result, said=["  Load: valid"])

    first = lines.index("  Load: valid")
    assert [line.split()[0] for line in lines[first + 1 : first + 4]] == [
        "speed",
        "speed.vh9",
        "late",
    ]
    assert not any("vh1" in line or "tail" in line for line in lines)


def test_summary_tells_gates_and_degradation() -> None:
    """Figures come with their verdict; a missing one is said to be missing."""
    metrics = {
        "loss": MetricResult(value=0.25, unit="nats", verdict=Verdict.PASS, max=0.5),
        "speed": MetricResult(value=None, unit="x/s", verdict=Verdict.NOT_RUN, min=1.0),
        "free": MetricResult(value=3.0, unit=""),
    }
    lines = summary_lines(replace(failed_result(), status=Status.STOPPED, metrics=metrics))
    assert lines[0].startswith("stopped  job on test: 1 rank on 1 node")
    assert lines[1:4] == [
        "  loss   0.25 nats  pass (at most 0.5)",
        "  speed  not reported  not-run (at least 1)",
        "  free   3",
    ]


@pytest.mark.parametrize(
    "state,reason,started,told",
    [
        ("unused", NOT_STARTED, False, "2 nodes clean: no rank was started there; continue from "),
        ("stopped", f"x; {VERIFIED_CLEAN}", True, "2 nodes verified clean; continue from "),
        ("dirty", NOT_LOOKED_AT, False, "continue from "),
        (
            "unused",
            f"{NOT_STARTED}; {VERIFIED_CLEAN}",
            False,
            "2 nodes verified clean; continue from ",
        ),
    ],
)
def test_a_stopped_run_tells_whether_its_nodes_are_clean(
    state: str, reason: str, started: bool, told: str
) -> None:
    """Also one that was stopped before its launch."""
    nodes = tuple(NodeResult(name=name, state=state, reason=reason) for name in ("a", "b"))
    result = replace(failed_result(), status=Status.STOPPED, failure=None, nodes=nodes)

    (line,) = stopped_text(result)
    assert line.startswith(told)
    assert ("no rank was started" not in summary_lines(result)[0]) == started


def test_a_stopped_test_under_loadgen_is_begun_anew() -> None:
    """Nothing of it could be continued."""
    node = NodeResult(name="a", state="stopped", reason=VERIFIED_CLEAN)
    result = replace(
        failed_result(), status=Status.STOPPED, failure=None, nodes=(node,), begins_anew=True
    )

    (line,) = stopped_text(result)
    assert line.endswith(f"begin it anew: orchestrate resume --retry {result.run_id}")
    assert "checkpoint" not in line


@pytest.mark.parametrize(
    "load, told", [(None, "from checkpoints if there are any"), (SHORT, "anew: a test cannot")]
)
def test_another_attempt_says_where_it_begins(load: LoadTerms | None, told: str) -> None:
    """And that what there was is kept."""
    state = new_state(replace(request("a"), load=load))

    line = narrate_event(Resumed(epoch=2, at=0.0, again=True), state)

    assert line is not None
    assert told in line.text
    assert line.text.endswith("what earlier attempts left is kept")


def test_a_run_that_was_left_is_not_told_as_one_that_stopped() -> None:
    """What may still run, and what ends it; `show` would know no more."""
    left = FailureResult(id="OR-STOP-001", cause="ranks may still run", remedy="orchestrate stop r")
    screen = failure_screen(
        replace(failed_result(), status=Status.STOPPED, failure=left, nodes=()), None
    )

    assert screen == ["LEFT: ranks may still run (OR-STOP-001)", "  next: orchestrate stop r"]


def test_summary_of_a_refused_run_tells_what_was_refused() -> None:
    """A plan's ranks that never started are not counted as if they had run."""
    nodes = tuple(
        NodeResult(name=f"n{number}", state=state)
        for number, state in enumerate(("excluded", "excluded", "unused"))
    )
    result = replace(failed_result(), status=Status.FAILED, nodes=nodes, world_size=3)
    assert "no rank was started, 2 of 3 nodes refused" in summary_lines(result)[0]


def test_the_headline_counts_who_came_to_the_end() -> None:
    """Of a run that got through without a node; one that failed ran on all of them."""
    nodes = (
        NodeResult(name="n1", state="used", ranks=4),
        NodeResult(name="n2", state="lost", ranks=2),
        NodeResult(name="n3", state="excluded"),
    )
    result = replace(failed_result(), status=Status.DEGRADED, failure=None, nodes=nodes)
    result = replace(result, world_size=6)
    assert ": 4 of 6 ranks on 1 of 2 nodes, " in summary_lines(result)[0]
    assert ": 6 ranks on 2 nodes, " in summary_lines(replace(result, status=Status.FAILED))[0]


def test_a_node_that_was_lost_on_the_way_is_told_with_what_clears_it() -> None:
    """Unless the failure's next step says so."""
    nodes = (NodeResult(name="n1", state="used"), NodeResult(name="n2", state="lost"))
    result = replace(failed_result(), status=Status.DEGRADED, failure=None, nodes=nodes)
    told = "  once n2 answers again, orchestrate stop r1 ends and verifies what is left there"
    assert told in summary_lines(result)
    assert told not in summary_lines(replace(failed_result(remedy=told), nodes=nodes))


def test_a_screen_never_leads_to_itself() -> None:
    """`show` prints the same screen; a refused run has no logs to look into either."""
    result = failed_result(remedy="", log="")
    assert failure_screen(result, None)[-1] == "  more: orchestrate logs r1"
    refused = replace(result, nodes=(NodeResult(name="a", state="unused"),))
    assert not any("  more: " in line for line in failure_screen(refused, None))


@pytest.mark.parametrize(
    "choice,environment,stream,expected",
    [
        ("auto", {}, Screen, True),
        ("auto", {}, io.StringIO, False),
        ("auto", {"NO_COLOR": "1"}, Screen, False),
        ("auto", {"TERM": "dumb"}, Screen, False),
        ("always", {"NO_COLOR": "1", "TERM": "dumb"}, io.StringIO, True),
        ("never", {}, Screen, False),
    ],
)
def test_colour(
    choice: str, environment: dict[str, str], stream: Callable[[], io.StringIO], expected: bool
) -> None:
    """--color decides; auto honours NO_COLOR, TERM=dumb and whether somebody looks."""
    assert terminal.use_color(choice, stream(), environment) is expected


def test_a_reader_that_leaves_does_not_end_the_run() -> None:
    """Writing to a closed pipe stops, silently and for good."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    writer = LineWriter(Gone())
    writer.line("x")
    writer.line("y")
    writer.close()


@pytest.mark.parametrize("status", [Status.DEGRADED, Status.FAILED])
def test_a_run_that_went_on_below_its_first_rung_says_so_however_it_ended(status: Status) -> None:
    """A gate that it missed may have been missed because of that."""
    ladder = (
        RungResult(rung="gloo", outcome="failed", reason="n2 cannot reach n1", seconds=4.0),
        RungResult(rung="local-rounds", outcome="used", reason="averaged over SSH", seconds=0.0),
    )
    text = "\n".join(summary_lines(replace(failed_result(), status=status, ladder=ladder)))
    assert "gloo failed after 4.0 s: n2 cannot reach n1" in text
    assert "used instead: local-rounds (averaged over SSH)" in text
    gate = FailureResult(id="OR-GATE-001", cause="eval_loss is too high", remedy="")
    lost = (NodeResult(name="n2", state="failed", reason="rank 1 was killed by SIGKILL"),)
    missed = replace(failed_result(), status=status, ladder=ladder, nodes=lost, failure=gate)
    assert "  without n2: rank 1 was killed by SIGKILL" in summary_lines(missed)
    refused = summary_lines(replace(failed_result(), ladder=ladder[:1]))
    assert "went on" not in "\n".join(refused)
