"""Commands about runs that exist: ps, show, logs, attach, stop."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options.shared import (
    FiniteRange,
    color_option,
    json_option,
    pick_options,
    use_color,
)
from orchestrator.cli.options.view_options import ViewOptions, view_options

if TYPE_CHECKING:
    from orchestrator.adapters.store.layout import Layout, RunFolder
    from orchestrator.adapters.store.run_list import RunSummary
    from orchestrator.core.verdict.result import Result

run_argument = click.argument("run", metavar="RUN")


@click.command()
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True)
@json_option
def ps(limit: int, as_json: bool) -> None:
    """List the latest runs of this home and how they are, also those that were cleaned."""
    from dataclasses import asdict

    from orchestrator.adapters.store.run_list import UNATTENDED
    from orchestrator.cli.output import print_json, print_table
    from orchestrator.cli.past_runs import latest_runs
    from orchestrator.view.progress.following import ways_on

    runs = latest_runs(_home_layout(), limit=limit)
    if as_json:
        for summary in runs:
            print_json("run", asdict(summary))
        return
    headings = ("run", "state", "cluster", "workload", "started", "took")
    print_table(headings, [_summary_cells(summary) for summary in runs])
    if any(summary.state == UNATTENDED for summary in runs):
        what = "the coordinator exited before cleanup was verified; ranks may still be running"
        click.echo(f"{UNATTENDED}: {what}; {ways_on('RUN')}", err=True)


@click.command()
@run_argument
@color_option
@json_option
def show(run: str, color: str, as_json: bool) -> int:
    """Show the result of RUN (an id, a unique beginning of one, or last), and how its figures
    compare with those of earlier runs of the same work.
    """
    from dataclasses import replace

    from orchestrator.adapters.report.result_json import to_object
    from orchestrator.cli.open_view import workload_lines
    from orchestrator.cli.output import print_json
    from orchestrator.cli.past_runs import compared_with_earlier, find_result
    from orchestrator.view.result.compared import comparison_lines
    from orchestrator.view.result.failure_screen import failure_screen
    from orchestrator.view.result.summary import summary_lines

    layout = _home_layout()
    result, folder = find_result(layout, run, _require_result)
    if cleaned := not folder.path.exists():
        result = replace(result, report="")
    if as_json:
        print_json("result", to_object(result))
        return 0
    paint = use_color(color)
    lines = [
        *summary_lines(result, said=workload_lines(folder.path, color=paint), color=paint),
        *comparison_lines(compared_with_earlier(layout, result), color=paint),
        *failure_screen(result, folder.path, color=paint),
        *(["its folder was removed, with logs and report: orchestrate clean"] if cleaned else []),
    ]
    click.echo("\n".join(lines), color=True)
    return 0


@click.command()
@run_argument
@click.option("-f", "--follow", is_flag=True, help="Until the run ends; exits with its code.")
@click.option("--ranks", metavar="LIST", help="Only these, such as 0,8-15.")
@click.option("--nodes", metavar="EXPR", help="Only these, such as gpu[01-04].")
@click.option("--grep", metavar="REGEX", help="Only lines that match.")
@click.option("--fold", is_flag=True, help="Merge lines that are the same on several ranks.")
@click.option("--stderr", "streams", flag_value="err", help="Only standard error.")
@click.option("--stdout", "streams", flag_value="out", help="Only standard output.")
@click.option("--no-prefix", is_flag=True, help="Without [node/rank].")
@color_option
def logs(run: str, follow: bool, fold: bool, no_prefix: bool, color: str, **chosen: Any) -> int:
    """Print the output of RUN's ranks; the raw bytes are in its folder."""
    from orchestrator.cli.log_options import parse_grep, require_match, select_sources
    from orchestrator.view.terminal.log_lines import FoldedLogLines, LogLines
    from orchestrator.view.terminal.log_tail import LogTail
    from orchestrator.view.terminal.terminal import LineWriter

    grep = parse_grep(chosen.pop("grep"))
    wanted = select_sources(**chosen)
    folder = _find_run(run)
    out = LineWriter(sys.stdout)
    lines = (FoldedLogLines if fold else LogLines)(
        out.write, color=use_color(color), prefix=not no_prefix, grep=grep
    )
    tail = LogTail(folder, wanted)
    if not follow:
        require_match(folder, wanted)
        tail.read_in_turn(lines.feed)
        lines.finish()
        if not folder.log_files():
            click.echo(f"run {folder.run_id} has no logs: {_why_no_logs(folder)}", err=True)
        return 0
    result = _follow_to_result(folder, lambda: tail.read(lines.feed) or lines.idle())
    lines.finish()
    require_match(folder, wanted)
    return int(result.exit_code) if result else 0


def _why_no_logs(folder: RunFolder) -> str:
    """Ranks that never began and ranks that wrote nothing look alike in an empty folder."""
    where = f"orchestrate show {folder.run_id} says how it went"
    if not folder.result.exists():
        return "it has no result yet"
    return f"its ranks wrote nothing, or none was started; {where}"


@click.command()
@run_argument
@view_options
def attach(run: str, **given: Any) -> int:
    """Show RUN from its beginning, then follow it; exits with its code. Ctrl-C detaches."""
    from orchestrator.cli.open_view import open_view, resolve_follow, show_result
    from orchestrator.engine.oneshot.cleanup import read_request
    from orchestrator.view.progress.replay_view import Replay

    folder = _find_run(run)
    own_code = read_request(folder).job.workload.own_code
    options = resolve_follow(pick_options(ViewOptions, given), own_code=own_code)
    view = open_view(options, folder.run_id)
    try:
        result = _follow_to_result(folder, Replay(folder, [view]).advance)
    finally:
        view.close(None)
    if result is None:
        click.echo(f"detached; the run continues: orchestrate attach {folder.run_id}", err=True)
        return 0
    return show_result(options, view, result, folder.path)


@click.command()
@run_argument
@click.option("--now", is_flag=True, help="Kill at once instead of ending gracefully.")
@click.option("--timeout", type=FiniteRange(1), default=120.0, show_default=True)
def stop(run: str, now: bool, timeout: float) -> int:
    """Stop RUN on all its nodes and confirm that nothing of it is left."""
    from orchestrator.cli import stop_run as stopping

    return stopping.stop_run(_home_layout(), _find_run(run), now=now, timeout_s=timeout)


def _home_layout() -> Layout:
    from orchestrator.adapters.store.layout import Layout

    return Layout.from_environment(os.environ)


def _find_run(run: str) -> RunFolder:
    from orchestrator.cli.past_runs import find_folder

    return find_folder(_home_layout(), run)


def _follow_to_result(folder: RunFolder, advance: Any) -> Result | None:
    """Until the run's result; None when the user leaves. Raises ``BusyError`` if nobody runs it."""
    from orchestrator.view.progress.following import follow_run

    try:
        return follow_run(folder, advance)
    except KeyboardInterrupt:
        return None


def _require_result(folder: RunFolder) -> Result:
    from orchestrator.adapters.store.run_list import UNATTENDED, read_result, summarise
    from orchestrator.core.base.errors import BusyError
    from orchestrator.view.progress.following import ways_on

    result = read_result(folder)
    if result is None:
        state = summarise(folder).state
        what = f"run {folder.run_id} has no result: it is {state}"
        attach = f"orchestrate attach {folder.run_id}"
        remedy = ways_on(folder.run_id) if state == UNATTENDED else attach
        raise BusyError(what, id="OR-STORE-006", where=folder.path, remedy=remedy)
    return result


def _summary_cells(summary: RunSummary) -> list[str]:
    from datetime import datetime

    from orchestrator.view.terminal.text import brief_text, format_seconds

    started = ""
    if summary.started is not None:
        moment = datetime.fromtimestamp(summary.started).astimezone()
        started = f"{moment:%Y-%m-%d %H:%M:%S}"
    took = "" if summary.seconds is None else format_seconds(summary.seconds)
    names = [brief_text(summary.cluster, 32), brief_text(summary.workload, 32)]
    state = f"{summary.state}, cleaned" if summary.cleaned else summary.state
    return [summary.run_id, state, *names, started, took]
