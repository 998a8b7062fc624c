"""Log lines of many ranks on one terminal: decoded, prefixed, folded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from orchestrator.parsing.replies.display_text import LineDecoder, clean_line
from orchestrator.view.terminal.terminal import NodeColors, paint_text
from orchestrator.view.terminal.text import TIMES

FOLD_LIMIT = 50_000
_FILE = re.compile(r"(?:rank-(?P<rank>[0-9]{1,9})|(?P<label>.+))\.(?P<stream>out|err)")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a log line comes from. ``rank`` None = a launcher; ``stream`` is ``out`` or ``err``."""

    node: str
    rank: int | None
    label: str
    stream: str

    @property
    def tag(self) -> str:
        """``node/3`` or ``node/launcher``."""
        return f"{self.node}/{self.label}"


def source_of(node: str, file: str) -> Source | None:
    """What a log file's name stands for, such as ``rank-3.err``; None for other files."""
    match = _FILE.fullmatch(file)
    if match is None:
        return None
    rank = int(match["rank"]) if match["rank"] else None
    label = str(rank) if rank is not None else clean_line(match["label"])
    return Source(clean_line(node), rank, label, match["stream"])


def is_worth_following(file: str, verbosity: int) -> bool:
    """A launcher's own output repeats in many words what the ranks' endings say, or what was told
    already: on request only.
    """
    return verbosity > 0 or file.startswith("rank-")


class LogLines:
    """Feeds of many streams to prefixed lines.

    ``wanted`` chooses sources, ``grep`` lines; ``emit`` gets the finished lines of one portion.
    """

    def __init__(
        self,
        emit: Callable[[list[str]], None],
        *,
        color: bool = False,
        prefix: bool = True,
        wanted: Callable[[Source], bool] = lambda _: True,
        grep: re.Pattern[str] | None = None,
    ) -> None:
        self._emit = emit
        self._color = color
        self._prefix = prefix
        self._wanted = wanted
        self._grep = grep
        self._colors = NodeColors()
        self._streams: dict[tuple[str, str], tuple[Source, LineDecoder] | None] = {}

    def feed(self, node: str, file: str, chunk: bytes) -> None:
        stream = self._stream(node, file)
        if stream is not None:
            self._show(stream[0], stream[1].feed(chunk))

    def finish(self) -> None:
        """Show unfinished lines; further feeds begin anew."""
        for stream in self._streams.values():
            if stream is not None:
                self._show(stream[0], stream[1].finish())
        self._streams.clear()

    def idle(self) -> bool:
        """Nothing new came for now; returns False, for loops that end when nothing happens."""
        return False

    def _stream(self, node: str, file: str) -> tuple[Source, LineDecoder] | None:
        key = (node, file)
        if key not in self._streams:
            source = source_of(node, file)
            known = source is not None and self._wanted(source)
            self._streams[key] = (source, LineDecoder()) if source and known else None
        return self._streams[key]

    def _show(self, source: Source, lines: Sequence[str]) -> None:
        if self._grep is not None:
            lines = [line for line in lines if self._grep.search(line)]
        if lines:
            self.emit(source, lines)

    def emit(self, source: Source, lines: Sequence[str]) -> None:
        """Put the prefix before ``lines`` and pass them on."""
        before = ""
        if self._prefix:
            tag = paint_text(f"[{source.tag}]", self._colors.of(source.node), color=self._color)
            before = f"{tag} "
        self._emit([f"{before}{line}" for line in lines])


class FoldedLogLines(LogLines):
    """Merges lines that are the same on several ranks, and shows how many.

    The n-th occurrence on one rank merges with the n-th on others. Lines wait until ``flush``, or
    until ``FOLD_LIMIT`` different ones are waiting.
    """

    def __init__(
        self,
        emit: Callable[[list[str]], None],
        *,
        color: bool = False,
        prefix: bool = True,
        wanted: Callable[[Source], bool] = lambda _: True,
        grep: re.Pattern[str] | None = None,
    ) -> None:
        super().__init__(emit, color=color, prefix=prefix, wanted=wanted, grep=grep)
        self._waiting: dict[tuple[str, int], list[Source]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def emit(self, source: Source, lines: Sequence[str]) -> None:
        for line in lines:
            nth = self._counts.get((source.tag, line), 0)
            self._counts[source.tag, line] = nth + 1
            self._waiting.setdefault((line, nth), []).append(source)
        if len(self._waiting) >= FOLD_LIMIT or len(self._counts) >= 4 * FOLD_LIMIT:
            self.flush()

    def idle(self) -> bool:
        self.flush()
        return False

    def finish(self) -> None:
        super().finish()
        self.flush()

    def flush(self) -> None:
        """Pass on what is waiting, in order of first appearance."""
        waiting, self._waiting = self._waiting, {}
        self._counts.clear()
        for (line, _), sources in waiting.items():
            if len(sources) == 1:
                super().emit(sources[0], [line])
            else:
                tag = paint_text(f"[{_count(sources)}] ", "\x1b[1m", color=self._color)
                self._emit([f"{tag if self._prefix else ''}{line}"])


def _count(sources: Iterable[Source]) -> str:
    sources = list(sources)
    noun = "launchers" if all(source.rank is None for source in sources) else "ranks"
    return f"{TIMES}{len(sources)} {noun}"


def parse_ranks(text: str) -> frozenset[int]:
    """``0,8-15`` as numbers. Raises ``ValueError`` with a message for people."""
    ranks: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,7})(?:\s*-\s*([0-9]{1,7}))?\s*", part)
        if match is None:
            raise ValueError(f"not a rank or a range like 8-15: {part.strip()!r}")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last < first or last - first > 100_000:
            raise ValueError(f"not a useful range: {part.strip()!r}")
        ranks.update(range(first, last + 1))
    return frozenset(ranks)
