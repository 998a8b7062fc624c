"""YAML as data with positions: every value knows its file, line and column, every error shows them.

A small composer over ruamel.yaml's event stream. It builds text, numbers, booleans, null, lists and
mappings, nothing else: tags are refused, so no document can name a Python object. ``no``, ``on``,
``22:22``, ``010`` and dates stay text. Size, depth, node count and alias expansion are bounded.

Messages name places and keys, and never repeat other text: whoever can choose the path of an
inventory could otherwise read a private key out of an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StreamMark, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.tokens import (
    FlowMappingEndToken,
    FlowMappingStartToken,
    FlowSequenceEndToken,
    FlowSequenceStartToken,
)

from orchestrator.core.base.errors import SourceLocation, UsageError
from orchestrator.core.base.file_sizes import MAX_FILE_BYTES

MAX_DEPTH = 32
MAX_NODES = 50_000
MAX_PROBLEMS = 20

Scalar = str | int | float | bool | None
Path = Sequence[str | int]

_INT = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_EXPONENT = "[eE][-+]?[0-9]{1,4}"
_FLOAT = re.compile(rf"-?(0|[1-9][0-9]*)(\.[0-9]*({_EXPONENT})?|{_EXPONENT})")
_CONSTANTS: dict[str, Scalar] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_CONSTANTS |= {"true": True, "True": True, "TRUE": True}
_CONSTANTS |= {"false": False, "False": False, "FALSE": False}
# What the parser found there. A single character or the name of a token tells nothing.
_QUOTED = re.compile(r"""(['"])((?:\\.|(?!\1).)*)\1""", re.DOTALL)
# How the parser complains inside of brackets, if it is not about a character or an escape.
_WANTS_CLOSING = ("expected ',' or", "expected the node content")
_HARMLESS = re.compile(r"<[a-z -]+>|.?", re.DOTALL)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class InputProblem:
    """One thing wrong in a file, and what to do about it."""

    place: SourceLocation
    what: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Tagged:
    """A text behind a tag that the dialect knows, such as ``!vault``; what it means is not ours."""

    tag: str
    text: str


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a document is read: what an unquoted word means, merge keys, the tags that are kept."""

    resolve: Callable[[str], Scalar]
    merges: bool = False
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Node:
    """One value with its position. A mapping maps a key to (where the key is, its value)."""

    place: SourceLocation
    value: Scalar | Tagged | list[Node] | dict[str, tuple[SourceLocation, Node]]
    size: int = 1
    depth: int = 0

    def plain(self) -> Any:
        """The value as ordinary Python data."""
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        if isinstance(self.value, dict):
            return {key: item.plain() for key, (_, item) in self.value.items()}
        return self.value


@dataclass(frozen=True, slots=True)
class Document:
    """A composed file. ``problems`` holds what can be reported together with schema errors."""

    source: str
    root: Node
    problems: tuple[InputProblem, ...] = ()

    def place(self, path: Path, *, key: bool = False) -> SourceLocation:
        """Where the value at ``path`` is, or its key; if absent, where the enclosing value is."""
        place, node = self.root.place, self.root
        for step in path:
            if isinstance(node.value, dict) and step in node.value:
                key_place, node = node.value[str(step)]
                place = key_place if key else node.place
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                place = node.place
            else:
                break
        return place


def parse_yaml(data: str | bytes, source: str, dialect: Dialect | None = None) -> Document:
    """Compose one YAML document. ``source`` is the file name that errors show.

    Without a ``dialect``, the strict one of this project's own files.

    Raises :class:`UsageError` with file:line:column for what is not one small, well-formed
    document. Duplicate keys and tags do not stop it: they are in ``problems``.
    """
    text = _decode_text(data, source)
    composer = _Composer(source, dialect or STRICT)
    try:
        root = composer.document(iter(YAML(typ="safe", pure=True).parse(text)))
    except _Refused as error:
        refuse_input([*composer.problems, error.problem], source)
    except MarkedYAMLError as error:
        refuse_input([*composer.problems, _syntax_problem(error, text, source)], source)
    except (YAMLError, ValueError, RecursionError):
        refuse_input([InputProblem(SourceLocation(source), "not YAML")], source)
    return Document(source, root, tuple(composer.problems))


def refuse_input(
    problems: Iterable[InputProblem], source: str, id: str = "config.invalid"
) -> NoReturn:
    """Raise one :class:`UsageError` that shows all problems (at most 20) in the file's order."""
    ordered = sorted(set(problems), key=lambda problem: (problem.place.line, problem.place.column))
    if len(ordered) == 1:
        only = ordered[0]
        raise UsageError(only.what, id=id, where=only.place, remedy=only.remedy)
    shown = [
        f"  {problem.place}: {problem.what}" + (f"; {problem.remedy}" if problem.remedy else "")
        for problem in ordered[:MAX_PROBLEMS]
    ]
    if len(ordered) > MAX_PROBLEMS:
        shown.append(f"  ... and {len(ordered) - MAX_PROBLEMS} more")
    raise UsageError("\n".join([f"{len(ordered)} problems", *shown]), id=id, where=source)


class _Refused(Exception):
    """The document goes beyond what is accepted."""

    def __init__(self, place: SourceLocation, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.problem = InputProblem(place, what, remedy)


class _Composer:
    """Builds nodes from parser events, and collects what is wrong but does not stop the reading."""

    def __init__(self, source: str, dialect: Dialect) -> None:
        self._source = source
        self._dialect = dialect
        self._anchors: dict[str, Node] = {}
        self._count = 0
        self.problems: list[InputProblem] = []

    def document(self, events: Iterator[Event]) -> Node:
        root: Node | None = None
        for event in events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    raise _Refused(self._place(event), "a second document; one file holds one")
                root = self._node(next(events), events, 0)
        return root or Node(SourceLocation(self._source, 1, 1), None)

    def _node(self, event: Event, events: Iterator[Event], depth: int) -> Node:
        place = self._place(event)
        if depth > MAX_DEPTH:
            raise _Refused(place, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, AliasEvent):
            return self._alias(event, place, depth)
        self._spend(1, place)
        tag = self._tag(event, place)
        if isinstance(event, ScalarEvent):
            text = self._text(event.value, place)
            value = self._dialect.resolve(text) if _is_plain(event) else text
            node = Node(place, Tagged(tag, text) if tag else value)
        elif isinstance(event, SequenceStartEvent):
            node = self._list(place, events, depth)
        else:
            assert isinstance(event, MappingStartEvent)
            node = self._mapping(place, events, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _tag(self, event: Event, place: SourceLocation) -> str:
        """The tag of a text, if the dialect knows it; any other is a problem."""
        if not isinstance(event, ScalarEvent | CollectionStartEvent) or event.tag is None:
            return ""
        tag = str(event.tag)
        if isinstance(event, ScalarEvent) and tag in self._dialect.tags:
            return tag
        what = "a tag (a word that begins with '!') is not accepted"
        remedy = "write plain text, numbers, lists and mappings"
        self.problems.append(InputProblem(place, what, remedy))
        return ""

    def _list(self, place: SourceLocation, events: Iterator[Event], depth: int) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(events), SequenceEndEvent):
            items.append(self._node(event, events, depth + 1))
        return Node(place, items, *_column_extent(items))

    def _mapping(self, place: SourceLocation, events: Iterator[Event], depth: int) -> Node:
        entries: dict[str, tuple[SourceLocation, Node]] = {}
        merged: dict[str, tuple[SourceLocation, Node]] = {}
        while not isinstance(event := next(events), MappingEndEvent):
            at = self._place(event)
            if not isinstance(event, ScalarEvent):
                raise _Refused(at, "a key must be plain text")
            is_merge = event.value == "<<" and _is_plain(event)
            node = self._node(next(events), events, depth + 1)
            if is_merge:
                if not self._dialect.merges:
                    remedy = "write the fields out; those of nodes belong under `defaults`"
                    self.problems.append(InputProblem(at, "merge keys are not accepted", remedy))
                # Else each of its fields would seem to be missing, too.
                merged = {**self._merged(node), **merged}
                continue
            key = self._text(event.value, at)
            if key in entries:
                what = f"key {key[:80]!r} is given twice (first at line {entries[key][0].line})"
                self.problems.append(InputProblem(at, what, "keep one of them"))
            entries[key] = (at, node)
        entries = {**merged, **entries}
        return Node(place, entries, *_column_extent([node for _, node in entries.values()]))

    def _merged(self, node: Node) -> dict[str, tuple[SourceLocation, Node]]:
        """What a merge key brings: a mapping, or several of which the first counts most."""
        sources = node.value if isinstance(node.value, list) else [node]
        entries: dict[str, tuple[SourceLocation, Node]] = {}
        for source in reversed(sources):
            if isinstance(source.value, dict):
                entries |= source.value
            else:
                self.problems.append(InputProblem(source.place, "a merge key wants a mapping"))
        return entries

    def _alias(self, event: AliasEvent, place: SourceLocation, depth: int) -> Node:
        anchored = self._anchors.get(event.anchor)
        if anchored is None:
            raise _Refused(place, "this alias (*) names no earlier, finished value")
        if depth + anchored.depth > MAX_DEPTH:
            raise _Refused(place, f"nested deeper than {MAX_DEPTH} levels")
        self._spend(anchored.size, place)
        return anchored

    def _text(self, text: str, place: SourceLocation) -> str:
        """``text`` with escaped UTF-16 pairs joined, as JSON means them."""
        try:
            joined = text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            joined = text.encode("utf-8", "replace").decode()
            self.problems.append(
                InputProblem(place, "an escape that is half a character", "remove it")
            )
        if "\0" in joined:
            self.problems.append(InputProblem(place, "a NUL character", "remove it"))
        return joined

    def _spend(self, nodes: int, place: SourceLocation) -> None:
        self._count += nodes
        if self._count > MAX_NODES:
            raise _Refused(place, f"more than {MAX_NODES} values, aliases expanded")

    def _place(self, event: Event) -> SourceLocation:
        mark = event.start_mark
        return SourceLocation(self._source, mark.line + 1, mark.column + 1)


def resolve_scalar(text: str) -> Scalar:
    """What an unquoted word means: null, true, false, a decimal number, else the text itself."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return int(text)
    if len(text) <= 64 and _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


STRICT = Dialect(resolve_scalar)


def _is_plain(event: ScalarEvent) -> bool:
    return event.style is None or event.style == ""


def _column_extent(nodes: list[Node]) -> tuple[int, int]:
    return 1 + sum(node.size for node in nodes), 1 + max((node.depth for node in nodes), default=0)


def _decode_text(data: str | bytes, source: str) -> str:
    size = len(data) if isinstance(data, bytes) else len(data.encode("utf-8", "surrogatepass"))
    if size > MAX_FILE_BYTES:
        remedy = "is this the file you meant?"
        problem = InputProblem(
            SourceLocation(source), f"larger than {MAX_FILE_BYTES >> 10} KiB", remedy
        )
        refuse_input([problem], source)
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8")
        remedy = "save the file as UTF-8"
        refuse_input([InputProblem(_place_after(before, source), "not UTF-8", remedy)], source)
    text = text.removeprefix("\ufeff")
    odd = _UNPRINTABLE.search(text)
    if odd is not None:
        what = f"control character U+{ord(odd.group()):04X}"
        place = _place_after(text[: odd.start()], source)
        refuse_input([InputProblem(place, what, "remove it")], source)
    return text


def _unclosed_start(
    error: MarkedYAMLError, text: str, source: str
) -> tuple[SourceLocation, str] | None:
    """Where the bracket or quote begins that is open where the parser gave up, and which it is."""
    if error.context == "while scanning a quoted scalar" and error.context_mark:
        at = error.context_mark
        return _place_of(at, source), f"the quote {text[at.index]}"
    if not str(error.problem).startswith(_WANTS_CLOSING):
        return None
    opened: list[StreamMark] = []
    try:
        for token in YAML(typ="safe", pure=True).scan(text):
            if token.start_mark.index >= error.problem_mark.index:
                break
            if isinstance(token, FlowSequenceStartToken | FlowMappingStartToken):
                opened.append(token.start_mark)
            elif opened and isinstance(token, FlowSequenceEndToken | FlowMappingEndToken):
                opened.pop()
    except MarkedYAMLError:
        pass
    if not opened:
        return None
    return _place_of(opened[-1], source), f"the bracket {text[opened[-1].index]}"


def _place_of(mark: StreamMark, source: str) -> SourceLocation:
    return SourceLocation(source, mark.line + 1, mark.column + 1)


def _place_after(before: str, source: str) -> SourceLocation:
    return SourceLocation(source, before.count("\n") + 1, len(before) - before.rfind("\n"))


def _syntax_problem(error: MarkedYAMLError, text: str, source: str) -> InputProblem:
    mark = error.problem_mark or error.context_mark
    place = _place_of(mark, source) if mark else SourceLocation(source)
    unclosed = _unclosed_start(error, text, source) if mark else None
    if unclosed is not None:
        opening, sign = unclosed
        what = f"{sign} is not closed before line {place.line}, column {place.column}"
        return InputProblem(opening, what, "close it, or put the comma that is missing")
    what = str(error.problem or error.context or "broken YAML")
    if r"'\t'" in what:
        return InputProblem(place, "a tab where YAML wants spaces", "indent with spaces")
    context = f" {error.context}" if error.context and error.context != what else ""
    told = _QUOTED.sub(lambda m: m[0] if _HARMLESS.fullmatch(m[2]) else "...", what + context)
    return InputProblem(
        place, f"broken YAML: {told.removesuffix(',)').replace('found (', 'found ')}"
    )
