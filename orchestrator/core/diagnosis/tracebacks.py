"""Python's tracebacks in a log: which lines are quoted program text, and what was raised first.

Lines of one traceback may carry a prefix each, and lines of other writers may stand between them;
or only the first line carries one. Exceptions that follow from another, or carry another's
traceback in their message, are told from the one that began it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from orchestrator.core.diagnosis.line_prefixes import read_head
from orchestrator.core.launchers import SCHEDULERS

_ASSERTION = "AssertionError"
BEGIN = "Traceback (most recent call last"
MAX_LINES = 600  # of one traceback, others' lines between them included
MAX_TOTAL = 60_000  # lines that are looked at in one stretch
MAX_STRAY = 12  # lines in a row that are no part of it
MAX_MESSAGE = 16  # lines of a message
MAX_PREFIX = 240
SHOWN = 2000  # characters of a line that are looked at

_ENDS = re.compile(r"[\r\n]")
# Frames and program text are indented, or stand in a box as Rich draws them.
_INSIDE = frozenset(" \t\u2502\u2570\u256d\u2503")
_FRAME = re.compile(r"[ |+]{0,24}File [\"\u201c].{1,400}?[\"\u201d], line \d{1,7}")
_RAISED = re.compile(
    r"(?P<name>[A-Za-z_][\w.]{0,120})(?:\([\w.]{1,80}\))?(?P<rest>: ?(?P<message>.{0,400})|$)"
)
# Names of classes; some of the standard library's are written like functions.
_CLASS = re.compile(r"(?:[\w.]{1,100}\.)?(?:[A-Z]\w{0,80}|\w{0,60}(?:Error|Exception|Exit))$")
_OLD_CLASS = re.compile(r"[\w.]{1,100}\.(?:timeout|error|gaierror|herror)$")
_BARE = re.compile(r"(?:Error|Exception|Interrupt|Exit|Iteration|Empty|Full|Timeout|Warning)$")
# Words that stand before the beginning and belong to it.
_INTRO = re.compile(r"(?:Original |Exception Group |\+ Exception Group |[\w ]{1,60}: )$")
_GROUP = "+ Exception Group "
_OPENS_MEMBER = re.compile(r"\+-{1,80} \d{1,3} -{1,80}$")
_MEMBER = re.compile(r"(?:^|[ :])\| ?(.{0,400})$")
_CLOCKS = re.compile(r"\d{4}[-/]\d\d[-/]\d\d|\d\d-\d\d|\d{1,2}:\d\d:\d\d(?:[.,]\d{1,9})?")
_IGNORED = ("Exception ignored in", "Exception ignored on", "Error in atexit")
# What stands between an exception and the traceback of another process or thread that it carries.
_CARRIES = (
    "-- Process",
    "Original Traceback",
    '"""',
    "+-+--",
    "emote Traceback",
    "emote traceback",
    "(most recent call last): (RANK ",
)
_OPEN = re.compile(r"(?:validation errors? for \w{1,60}|:)$")
SCHEDULER_COMMANDS = [command for s in SCHEDULERS for command in s.logs.commands]
# Lines of launchers and rules between sections, which may follow an exception at once.
_OTHERS = re.compile(
    rf"(?:{'|'.join(SCHEDULER_COMMANDS)}|mpirun|prterun|wandb|pdsh@|clush|docker|ssh|NVRM|bash|sh"
    r"|ninja)\b|[-=*#]{12}"
)
# Exceptions that programs catch to raise a better one.
_CONTROL = ("KeyError", "AttributeError", "IndexError", "StopIteration", "LookupError", "TypeError")


class Link(Enum):
    """How an exception relates to the one raised after it in the same text."""

    NONE = ""
    CAUSE = "The above exception was the direct cause of the following exception"
    HANDLED = "During handling of the above exception, another exception occurred"


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """An exception at the end of a traceback. Positions are characters of the text.

    ``begin``: of the traceback's first line; ``line``: of the exception's own; ``end``: behind its
    message. ``quoted``: where lines begin that show frames and program text; ``bare``: its lines
    carry no prefix of their own. ``follows``: another exception led to it, or stands in its
    message. ``ignored``: the interpreter said so and went on.
    """

    begin: int
    line: int
    end: int
    name: str
    message: str
    quoted: frozenset[int]
    bare: bool
    link: Link = Link.NONE
    carries: bool = False
    follows: bool = False
    ignored: bool = False

    @property
    def handled(self) -> bool:
        """The program had caught it when the next one was raised."""
        return self.link is Link.HANDLED

    @property
    def leaves(self) -> bool:
        """Whether it only ends the program, as it was meant to."""
        return _is_exit(self) and self.message in {"", "0", "None"}

    @property
    def text(self) -> str:
        """``ValueError: batch of 0 rows``."""
        return f"{self.name}: {self.message}" if self.message else self.name


def find_raised(text: str) -> list[Raised]:
    """Every exception whose traceback begins in ``text``, in their order."""
    if BEGIN not in text:
        return []
    return list(_related_errors(_TracebackReader(text).read()))


def is_exception(name: str) -> bool:
    """Whether ``name`` looks like the class of an exception."""
    return bool(_CLASS.match(name) or _OLD_CLASS.match(name))


# ---- lines -------------------------------------------------------------------------------------


class _Label:
    """What each line of one writer begins with, but for times."""

    def __init__(self, prefix: str) -> None:
        self.length = len(prefix)
        self._shape = _prefix_shape(prefix)

    def body(self, line: str) -> str | None:
        """The line without it; None for the line of another writer."""
        if not self.length:
            return line
        if _prefix_shape(line[: self.length]) == self._shape:
            return line[self.length :]
        blank = len(line) < self.length and self._shape.rstrip() == _prefix_shape(line)
        return "" if blank else None


def _prefix_shape(prefix: str) -> str:
    return _CLOCKS.sub(lambda match: "0" * len(match[0]), prefix)


@dataclass(frozen=True, slots=True)
class _TracebackLine:
    start: int
    end: int
    body: str  # without the writer's prefix


class _TracebackReader:
    """One text, of which only so many lines are looked at."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._left = MAX_TOTAL

    def read(self) -> Iterator[Raised]:
        position = self._text.find(BEGIN)
        while position >= 0 and self._left > 0:
            one = self._read_one(position)
            if one is not None and one.name.endswith("ExceptionGroup"):
                yield from self._read_members(one)
                one = None
            while one is not None:
                yield one
                one = self._in_message(one)
            position = self._text.find(BEGIN, self._line_end(position))

    def _read_one(self, position: int) -> Raised | None:
        """The exception of the traceback whose words begin at ``position``; None without one."""
        begin = self._line_start(position)
        prefix = self._text[begin:position][-MAX_PREFIX:]
        behind = self._line_end(position)
        labels = [_Label(prefix), _Label(_INTRO.sub("", prefix))]
        if prefix.endswith(_GROUP):  # whose lines stand behind a bar
            labels.insert(0, _Label(prefix[: -len(_GROUP)] + "| "))
        label = next((each for each in labels if self._repeats(behind, each)), _Label(""))
        return self._read_frames(begin, behind, label)

    def _read_members(self, group: Raised) -> Iterator[Raised]:
        """The group and those of its exceptions that were never raised and have no traceback."""
        members: list[Raised] = []
        opened = False
        for line in self._lines(self._line_end(group.line), _Label("")):
            bare = _MEMBER.search(line.body)
            match = _match_exception(bare[1]) if opened and bare else None
            if match is not None:
                message = (match["message"] or "").strip()
                members.append(
                    replace(
                        group, line=line.start, end=line.end, name=match["name"], message=message
                    )
                )
            opened = _OPENS_MEMBER.search(line.body) is not None
            if not (opened or bare or line.body.rstrip().endswith("----")):
                break
        yield replace(group, carries=True)
        yield from members

    def _read_frames(self, begin: int, behind: int, label: _Label) -> Raised | None:
        """From the line that begins after ``behind`` to the exception's."""
        quoted: set[int] = set()
        stray, asserted = 0, ""
        for line in self._lines(behind, label):
            if BEGIN in line.body:
                return None
            inside = line.body[:1] in _INSIDE or _FRAME.match(line.body) is not None
            if not inside and (match := _match_exception(line.body)):
                one = self._raised(begin, line, match, frozenset(quoted), label)
                bare = one.name == _ASSERTION and not one.message
                return replace(one, message=asserted) if bare else one
            asserted = _asserted(line.body, asserted)
            quoted |= {line.start} if inside else set()
            stray = 0 if inside else stray + 1
            if stray > MAX_STRAY:
                return None
        return None

    def _raised(
        self,
        begin: int,
        line: _TracebackLine,
        match: re.Match[str],
        quoted: frozenset[int],
        label: _Label,
    ) -> Raised:
        message, link, carries, end = self._message(line, match["message"] or "", label)
        return Raised(
            begin=begin,
            line=line.start,
            end=end,
            name=match["name"],
            message=message,
            quoted=quoted,
            bare=not label.length,
            link=link,
            carries=carries,
            ignored=self._is_ignored(begin),
        )

    def _message(
        self, line: _TracebackLine, first: str, label: _Label
    ) -> tuple[str, Link, bool, int]:
        """Its first words, how it goes on, whether another traceback stands in it, its end."""
        message, marked, closed, end = first.strip(), False, False, line.end
        for n, below in enumerate(self._lines(line.end, label)):
            marked = marked or any(word in below.body for word in _CARRIES)
            if BEGIN in below.body:
                return message, Link.NONE, marked, end
            for link in (Link.CAUSE, Link.HANDLED):
                if link.value in below.body:
                    return message, link, False, end
            blank = not below.body.strip()
            if n >= MAX_MESSAGE or _FRAME.match(below.body) or _is_anothers(below.body):
                break
            if not blank and not closed:
                message, end = _join_message(message, below.body.strip()), below.end
            closed = closed or (blank and bool(message))
        return message, Link.NONE, False, end

    def _in_message(self, outer: Raised) -> Raised | None:
        """The exception in the message of ``outer``, where frames follow without a beginning of
        their own, as errors of tasks are shown.
        """
        line = self._text[outer.line : self._line_end(outer.line)]
        label = _Label("" if outer.bare else line[: max(0, line.find(outer.name))])
        behind = self._line_end(outer.line)
        first = next(self._lines(behind, label), None)
        if first is None or _FRAME.match(first.body) is None:
            return None
        return self._read_frames(outer.line, behind, label)

    def _is_ignored(self, begin: int) -> bool:
        before = self._text[max(0, begin - 300) : begin].rstrip("\r\n")
        return any(word in before[before.rfind("\n") + 1 :] for word in _IGNORED)

    def _repeats(self, behind: int, label: _Label) -> bool:
        """Whether lines below carry the label, too: then each line of this writer does."""
        if not label.length:
            return False
        for n, line in enumerate(self._lines(behind, _Label(""))):
            if label.body(line.body):
                return True
            if n >= 4 * MAX_STRAY or _FRAME.match(line.body):
                return False
        return False

    def _lines(self, behind: int, label: _Label) -> Iterator[_TracebackLine]:
        """This writer's lines after position ``behind``, which is the end of a line."""
        position = behind
        for _ in range(MAX_LINES):
            start = position + 1
            if self._text[position : start + 1] == "\r\n":
                start += 1
            self._left -= 1
            if start >= len(self._text) or self._left < 0:
                return
            position = self._line_end(start)
            body = label.body(self._text[start : min(position, start + SHOWN)])
            if body is not None:
                yield _TracebackLine(start, position, body)

    def _line_start(self, position: int) -> int:
        least = max(0, position - 4 * MAX_PREFIX)
        ends = (self._text.rfind(end, least, position) for end in "\r\n")
        return max(*ends, least - 1) + 1

    def _line_end(self, position: int) -> int:
        match = _ENDS.search(self._text, position)
        return len(self._text) if match is None else match.start()


def _asserted(body: str, before: str) -> str:
    """The statement that a frame shows, if it asserts something; marks below it change nothing."""
    text = body.strip()
    if text.startswith("assert "):
        return text.partition("  #")[0][:MAX_PREFIX]
    return before if text and not text.strip("^~ ") else ""


def _join_message(message: str, below: str) -> str:
    """With the next line, where the first says nothing yet: ``1 validation error for X``."""
    if not message:
        return below
    heading = message.isupper() and " " in message  # in capitals
    return f"{message} {below}" if heading or _OPEN.search(message) else message


def _is_anothers(body: str) -> bool:
    """Whether a line below an exception begins something else: with a prefix, or a program's."""
    return _OTHERS.match(body) is not None or read_head(body).text != body.lstrip()


def _match_exception(body: str) -> re.Match[str] | None:
    """The name and message of an exception that a line begins with."""
    match = _RAISED.match(body)
    if match is None or not is_exception(match["name"]):
        return None
    return match if match["rest"] or _BARE.search(match["name"]) else None


# ---- several -----------------------------------------------------------------------------------


def _related_errors(found: Iterator[Raised]) -> Iterator[Raised]:
    """Which of them only follow from others."""
    several = list(found)
    for n, one in enumerate(several):
        before = several[n - 1] if n else None
        after = several[n + 1] if n + 1 < len(several) else None
        linked = before is not None and before.link is not Link.NONE
        caused = linked and before is not None and (_is_exit(one) or not _is_control(before))
        inner = after is not None and (after.begin == one.line or one.carries)
        told_better = (
            after is not None and _is_control(one) and not _is_exit(_chain_end(several[n:]))
        )
        yield replace(one, follows=caused or inner or told_better)


def _chain_end(several: Sequence[Raised]) -> Raised:
    """The last exception that the first of them led to."""
    return next((one for one in several if one.link is Link.NONE), several[-1])


def _is_exit(one: Raised) -> bool:
    """Whether it only leaves the program: why, says what was raised before."""
    return one.name.rpartition(".")[2] in {"SystemExit", "Exit"}


def _is_control(one: Raised) -> bool:
    """Whether it was caught on purpose: what was raised then says more."""
    return one.handled and one.name.rpartition(".")[2] in _CONTROL
