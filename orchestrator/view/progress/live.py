"""Progress on a terminal: one line per node, redrawn in place; log lines pass above it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.core.run.events import Event
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.result import Result
from orchestrator.view.progress.board import Board, ShownNode
from orchestrator.view.progress.narrate import Weight, narrate_event
from orchestrator.view.progress.plain_lines import FOLD_ABOVE, describe_progress
from orchestrator.view.progress.plan_news import PlanNews
from orchestrator.view.terminal.log_lines import LogLines, is_worth_following
from orchestrator.view.terminal.text import brief_text, count_noun, format_seconds

REFRESH_PER_S = 5
MAX_BAR_WIDTH = 24
MAX_TROUBLED_ROWS = 10


class LiveView:
    """An observer that draws. Above ``FOLD_ABOVE`` nodes, nodes are counted by stage and only the
    troubled ones have a line of their own.
    """

    def __init__(
        self, stream: TextIO, *, color: bool, verbosity: int = 0, follow: bool = False
    ) -> None:
        self._board = Board()
        self._news = PlanNews()
        self._lock = threading.Lock()  # the refresh thread draws while events come in
        self._began = time.monotonic()
        self._verbosity = verbosity
        self._follow = follow
        self._console = Console(
            file=stream,
            force_terminal=True,
            no_color=not color,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._logs = LogLines(self._print, color=color)
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=REFRESH_PER_S,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def on_event(self, at: float, event: Event, state: RunState) -> None:
        with self._lock:
            self._board.update(at, event, state)
        threshold = Weight.DETAIL if self._verbosity > 0 else Weight.PROBLEM
        for line in (narrate_event(event, state), *self._news.lines(state)):
            if line is not None and line.weight >= threshold:
                style = "red" if line.weight is Weight.PROBLEM else "dim"
                where = f"{brief_text(line.node)}: " if line.node else ""
                self._console.print(Text(where + line.text, style=style))

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        if self._follow and is_worth_following(file, self._verbosity):
            self._logs.feed(node, file, chunk)

    def on_note(self, text: str) -> None:
        self._console.print(Text(brief_text(text, 400), style="dim"))

    def close(self, result: Result | None) -> None:
        del result
        self._logs.finish()
        self._live.stop()

    def _print(self, lines: list[str]) -> None:
        self._console.print(Text.from_ansi("\n".join(lines)), soft_wrap=True)

    def _draw(self) -> RenderableType:
        with self._lock:
            rows = list(self._board.rows())
            return Group(_table(rows, self._console.width), self._total(rows))

    def _total(self, rows: list[ShownNode]) -> Text:
        elapsed = format_seconds(time.monotonic() - self._began)
        up, ranks = sum(row.up for row in rows), sum(row.ranks for row in rows)
        parts = [f"{self._board.phase.value}  {elapsed}", count_noun(len(rows), "node")]
        if ranks:
            parts.append(f"{up}/{ranks} ranks up")
        if self._board.rung:
            parts.append(self._board.rung)
        progress = self._board.overall()
        if progress is not None:
            parts.append(describe_progress(progress, self._board.fields()))
        return Text("  ·  ".join(parts), style="bold", no_wrap=True, overflow="ellipsis")


def _table(rows: list[ShownNode], width: int) -> Table:
    bar_width = min(MAX_BAR_WIDTH, width // 6)
    table = Table.grid(padding=(0, 2), expand=False)
    for least in (min(24, _longest(rows)), 10, 0, 0, 0):
        # Names and stages stay readable; a narrow terminal cuts what comes after them.
        table.add_column(no_wrap=True, overflow="ellipsis", min_width=least)
    if len(rows) <= FOLD_ABOVE:
        for row in rows:
            table.add_row(*_cells(row, bar_width))
        return table
    for name, count in Counter(row.stage for row in rows).most_common():
        table.add_row(Text(count_noun(count, "node")), Text(name), "", "", "")
    for row in _troubled(rows):
        table.add_row(*_cells(row, bar_width))
    return table


def _longest(rows: list[ShownNode]) -> int:
    return max((len(row.node) for row in rows), default=0)


def _troubled(rows: list[ShownNode]) -> Iterator[ShownNode]:
    yield from [row for row in rows if not row.healthy][:MAX_TROUBLED_ROWS]


def _cells(row: ShownNode, bar_width: int) -> list[RenderableType]:
    style = "red" if not row.healthy else "green" if row.stage == "running" else ""
    ranks = f"{row.up}/{row.ranks} ranks" if row.ranks else ""
    progress = row.progress
    bar: RenderableType = ""
    if progress is not None and progress.total > 0:
        bar = ProgressBar(total=1.0, completed=progress.fraction, width=bar_width)
    words = describe_progress(progress, row.fields) if progress is not None else row.fields
    return [
        Text(brief_text(row.node, 40)),
        Text(row.stage, style=style),
        Text(ranks),
        bar,
        Text(row.reason or words),
    ]
