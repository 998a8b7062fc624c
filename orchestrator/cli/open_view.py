"""Views for the commands that watch a run, and how they end."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from orchestrator.cli.options.shared import use_color
from orchestrator.cli.options.view_options import ViewOptions
from orchestrator.core.verdict.result import Result
from orchestrator.engine.support.observer import Observer
from orchestrator.view.progress.json_lines import JsonLines
from orchestrator.view.progress.plain_lines import PlainView
from orchestrator.view.result.failure_screen import failure_screen
from orchestrator.view.result.summary import stopped_text, summary_lines
from orchestrator.view.terminal.terminal import LineWriter, can_redraw


def open_view(options: ViewOptions, run_id: str) -> Observer:
    """Live where lines can be redrawn, else plain, both on stderr; or JSON on stdout."""
    follow = bool(options.follow)
    if options.as_json:
        return JsonLines(LineWriter(sys.stdout), run_id=run_id, follow=follow)
    color = use_color(options.color, err=True)
    if can_redraw(sys.stderr, os.environ) and not options.quiet:
        from orchestrator.view.progress.live import LiveView

        return LiveView(sys.stderr, color=color, verbosity=options.verbosity, follow=follow)
    return PlainView(
        LineWriter(sys.stderr), color=color, verbosity=options.verbosity, follow=follow
    )


def resolve_follow(options: ViewOptions, *, own_code: bool) -> ViewOptions:
    """Scripts of one's own show their output unless that is not wanted."""
    if options.follow is not None:
        return options
    return replace(options, follow=own_code and not options.as_json and not options.quiet)


def show_result(options: ViewOptions, view: Observer, result: Result, folder: Path | None) -> int:
    """The result on stdout, a failure's screen on stderr; returns the exit code."""
    if isinstance(view, JsonLines):
        view.write_result(result)
    else:
        color = use_color(options.color)
        said = workload_lines(folder, color=color)
        LineWriter(sys.stdout).write(summary_lines(result, said=said, color=color))
        LineWriter(sys.stderr).write(stopped_text(result))
    screen = failure_screen(result, folder, color=use_color(options.color, err=True))
    LineWriter(sys.stderr).write(screen)
    return int(result.exit_code)


def show_left(options: ViewOptions, view: Observer, result: Result) -> int:
    """For a user who did not wait for a result: what is left, and what ends it; the exit code."""
    if isinstance(view, JsonLines):
        view.write_result(result)
    screen = failure_screen(result, None, color=use_color(options.color, err=True))
    LineWriter(sys.stderr).write(screen)
    return int(result.exit_code)


def workload_lines(folder: Path | None, *, color: bool) -> list[str]:
    """What the workload itself adds to its result on a terminal."""
    from orchestrator.adapters.report.section_files import read_sections
    from orchestrator.adapters.store.layout import RunFolder
    from orchestrator.view.result.result_sections import section_lines

    return section_lines(read_sections(RunFolder(folder)), color=color) if folder else []
