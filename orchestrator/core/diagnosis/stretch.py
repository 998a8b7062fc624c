"""One stretch of a log, with what was read before it: tracebacks, times, signs of life."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

from orchestrator.core.diagnosis.diagnosis_model import LogSource
from orchestrator.core.diagnosis.line_prefixes import Head, read_head
from orchestrator.core.diagnosis.line_times import last_time, read_time
from orchestrator.core.diagnosis.observations import SERVES, WENT_ON, Remark
from orchestrator.core.diagnosis.signs import line_end
from orchestrator.core.diagnosis.tracebacks import Raised, find_raised
from orchestrator.core.diagnosis.wordings import SERVED, STEP

NEAR, NEAR_LINES = 600, 4  # characters and lines around one, in which a message may have parts
LOOK_BACK = 4096  # characters in which the time of a line without one is looked for
MAX_DETAIL = 240  # characters of an exception's words
MAX_STEPS = 256  # in a stretch, the last ones
LIFE = 64 << 10  # characters at the end of a stretch in which signs of life are looked for
MIN_STEPS = 3  # after a line: ranks that lost another one may still report the step they are in
_ANNOUNCES = re.compile(r"(?i:exception|error|failed|crash).{0,80}$")
_RAY_TASK = re.compile(r"\bray::[\w.<>]{1,120}\(\) \(pid=\d{1,9}, ip=(?P<node>[\w.:-]{1,60})")
_PDSH = "pdsh@"
_PDSH_ENDED = re.compile(
    r"^pdsh@[\w.-]{1,80}: (?P<node>[\w.-]{1,80}): (?:ssh|rsh|mrsh) exited", re.MULTILINE
)
_SECTION = re.compile(r"^(?:={2,12}|#{1,12}|-{2,12}) [^\n]{1,120}$", re.MULTILINE)
_DMESG_OF = re.compile(r"\bdmesg(?: -\w{1,4})? ?(?:\(|on |of |@ ?)(?P<node>[\w.-]{1,80})")
_FRAME = re.compile(r'File "[^"\n]{1,400}", line \d{1,7}')


class Stretch:
    """One stretch and the lines before it."""

    def __init__(self, content: str, source: LogSource, at: float | None) -> None:
        self.content = content
        self.source = source
        self.raised = sorted(find_raised(content), key=lambda each: each.line)
        self._lines = [each.line for each in self.raised]
        self._quoted = frozenset[int]().union(*(each.quoted for each in self.raised))
        self._at = at
        self._timed = 0  # up to where times were looked for

    def is_quoted(self, start: int) -> bool:
        """Whether the line is program text that a traceback shows: what it says did not happen."""
        return start in self._quoted or _stands_deeper(self.content, start)

    def introduced(self, raised: Raised) -> Head:
        """By whom a traceback is written whose end does not tell: by its first line, or, where its
        lines carry no prefix, by the line above, with which loggers and schedulers announce it.
        """
        begin = raised.begin
        line = self.content[begin : line_end(self.content, begin)]
        head = self.head_of(line)
        if not head.node and head.rank is None and (task := _RAY_TASK.search(line)) is not None:
            return replace(head, node=task["node"])
        if not raised.bare or head.node or head.rank is not None:
            return head
        return self.announcement(raised) or head

    def head_of(self, line: str) -> Head:
        """Its prefixes; a short name that no other line takes for a host's is one where pdsh says
        that it ran there.
        """
        head = read_head(line)
        name, colon, text = line.partition(": ")
        if head.node or head.rank is not None or not colon or name not in self._pdsh_hosts:
            return head
        return replace(read_head(text), node=name)

    @cached_property
    def _pdsh_hosts(self) -> frozenset[str]:
        if _PDSH not in self.content:
            return frozenset()
        return frozenset(match["node"] for match in _PDSH_ENDED.finditer(self.content))

    def section_node(self, start: int) -> str:
        """The node in the heading of the section of kernel messages in which the line stands."""
        before = self.content[max(0, start - LOOK_BACK) : start]
        headings = deque(_SECTION.finditer(before), maxlen=1)
        of_kernel = _DMESG_OF.search(headings[0][0]) if headings else None
        return "" if of_kernel is None else of_kernel["node"]

    def announcement(self, raised: Raised) -> Head | None:
        """The line above a traceback that says what failed; lines of other ranks may be between."""
        above = self.content[max(0, raised.begin - LOOK_BACK) : max(0, raised.begin - 1)]
        for line in reversed(above.split("\n")[-NEAR_LINES:]):
            if _ANNOUNCES.search(line[-MAX_DETAIL:]):
                return read_head(line)
            if read_head(line).rank is None:
                break
        return None

    def raised_at(self, start: int) -> Raised | None:
        """The exception to whose words the line belongs."""
        n = bisect_right(self._lines, start) - 1
        return self.raised[n] if n >= 0 and start < self.raised[n].end else None

    @cached_property
    def last_steps(self) -> dict[tuple[str, int | None], int]:
        """Where each writer, by node and rank, last reported a step of its training."""
        steps = deque(STEP.finditer(self.content), maxlen=MAX_STEPS)
        return {self._writer_at(match.start()): match.start() for match in steps}

    def signs_of_life(self, first_line: int, begin: int) -> Iterator[Remark]:
        """The last steps of training, and the last request that was served, of each writer: what
        is looked at is the end of the stretch.
        """
        least = max(begin, len(self.content) - LIFE)
        number = first_line + self.content.count("\n", begin, least)
        for kind, words, wanted in ((WENT_ON, STEP, MIN_STEPS), (SERVES, SERVED, 1)):
            lines: dict[LogSource, deque[int]] = {}
            for match in deque(words.finditer(self.content, least), maxlen=MAX_STEPS):
                node, rank = self._writer_at(match.start())
                rank = self.source.rank if rank is None else rank
                writer = replace(self.source, node=self.source.node or node, rank=rank)
                line = number + self.content.count("\n", least, match.start())
                lines.setdefault(writer, deque(maxlen=wanted)).append(line)
            for writer, last in lines.items():
                if len(last) == wanted:
                    yield Remark(kind=kind, source=writer, line=last[0], text="", told={})

    def _writer_at(self, position: int) -> tuple[str, int | None]:
        start = self.content.rfind("\n", 0, position) + 1
        head = read_head(self.content[start : line_end(self.content, start)])
        return head.node, head.rank

    def time(self, start: int, line: str) -> float | None:
        """The line's own time, else that of the last line before it which has one. To be asked
        for one line after the other.
        """
        if (own := read_time(line)) is not None:
            return own
        earlier = last_time(self.content[max(self._timed, start - LOOK_BACK) : start])
        self._at = self._at if earlier is None else earlier
        self._timed = start
        return self._at


def _stands_deeper(text: str, start: int) -> bool:
    """Whether the line stands deeper than the frame above it, where no traceback is known.

    Frames of ``-c``, of extensions and of frozen modules show no text; what follows them at once
    may be the exception itself.
    """
    before = text[max(0, start - LOOK_BACK) : max(0, start - 1)]
    frame = _FRAME.search(before, before.rfind("\n") + 1)
    if frame is None:
        return False
    column = frame.start() - before.rfind("\n") - 1
    return text[start + column : start + column + 2].isspace()
