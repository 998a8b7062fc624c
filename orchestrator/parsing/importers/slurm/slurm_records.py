"""``NAME=value`` records: slurm.conf with what it includes, and what ``scontrol show`` prints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.parsing.importers.text_lines import split_lines

_PAIR = re.compile(r'([A-Za-z][A-Za-z0-9_.]*)\s*[-*+/]?=\s*(?:"([^"]*)"|(\S+)|(?=\s|$))')
_COMMENT = re.compile(r"(?<!\\)#.*")
_INCLUDE = re.compile(r"include\s+(\S.*)", re.IGNORECASE)
_BEGINS = re.compile(r"(NodeName|PartitionName|JobId|ReservationName)=", re.IGNORECASE)
# Only scontrol prints these.
_PRINTED = re.compile(r"\b(Arch|CPUAlloc|JobState|TotalNodes|OwnerUID|EligibleTime|NodeCnt)=")
# Free text to the end of the line.
_FREE_TEXT = re.compile(r"(?:^|\s)(Reason|Comment|Extra|OS|Command|AdminComment)=(.*)$")

# The key under which a line has a second record, which Slurm refuses.
TWO_RECORDS = "="
_KINDS = frozenset({"nodename", "partitionname", "nodeset"})

MAX_DEPTH = 16
MAX_FILES = 1000

# The (name, text) of an included file; raises OSError or ValueError when it cannot be read.
Include = Callable[[str], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class SlurmRecord:
    """One record; keys in lower case. ``file`` and ``line`` are where it begins."""

    file: str
    line: int
    pairs: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, key: str) -> str:
        return self.pairs.get(key, "")


@dataclass(frozen=True, slots=True)
class Missing:
    """An included file that could not be read."""

    file: str
    line: int
    why: str


def no_include(name: str) -> tuple[str, str]:
    """For text that lies in no folder."""
    raise ValueError(f"{name}: where it lies is not known")


def is_record(line: str) -> bool:
    """Whether ``line`` begins a record or a setting of slurm.conf."""
    return re.match(r"[A-Za-z]+\s*=|include\s", line, re.IGNORECASE) is not None


def is_printed(text: str) -> bool:
    """Whether scontrol printed ``text``, which then has no comments."""
    return _PRINTED.search(text) is not None


def printed_records(text: str, file: str) -> Iterator[SlurmRecord]:
    """What ``scontrol show node``, ``partition`` or ``job`` prints, in several lines or one."""
    current: SlurmRecord | None = None
    for number, line in enumerate(split_lines(text), start=1):
        content = line.strip()
        if _BEGINS.match(content):
            if current is not None:
                yield current
            current = SlurmRecord(file, number)
        if current is not None and content:
            current = replace(current, pairs={**current.pairs, **_printed_pairs(content)})
    if current is not None:
        yield current


def _printed_pairs(content: str) -> dict[str, str]:
    free = {}
    # The reason stands at the end of a line, and whatever else is free text before other pairs.
    while (match := _FREE_TEXT.search(content)) is not None:
        value, after = match[2], ""
        if match[1] in ("OS", "Command") and (next_ := re.search(r"\s(?=\w+=)", value)):
            value, after = value[: next_.start()], value[next_.start() :]
        free[match[1].lower()] = value
        content = f"{content[: match.start()]}{after}"
    return {**_parse_pairs(content), **free}


def conf_records(text: str, file: str, include: Include) -> Iterator[SlurmRecord | Missing]:
    """The lines of slurm.conf, and in place of each Include those of the file that it names."""
    return _ConfReader(include).read(text, file)


class _ConfReader:
    """One pass over slurm.conf and what it includes."""

    def __init__(self, include: Include) -> None:
        self._include = include
        self._files = 0
        self._cluster = ""

    def read(self, text: str, file: str, depth: int = 0) -> Iterator[SlurmRecord | Missing]:
        for number, line in _join_lines(text):
            content = _COMMENT.sub("", line).replace("\\#", "#").strip()
            match = _INCLUDE.fullmatch(content)
            if match is not None:
                yield from self._follow(match[1], file, number, depth + 1)
            elif pairs := _parse_pairs(content):
                self._cluster = pairs.get("clustername", self._cluster)
                yield SlurmRecord(file, number, pairs)

    def _follow(
        self, path: str, file: str, line: int, depth: int
    ) -> Iterator[SlurmRecord | Missing]:
        """``%c`` in a path stands for the cluster's name, which is given above."""
        self._files += 1
        if depth > MAX_DEPTH or self._files > MAX_FILES:
            yield Missing(file, line, "includes are nested too deep, or too many")
            return
        try:
            if "%c" in path and not self._cluster:
                raise ValueError(f"{path}: no ClusterName is given above")
            name, included = self._include(path.replace("%c", self._cluster))
        except (OSError, ValueError) as error:
            yield Missing(file, line, str(error))
            return
        yield from self.read(included, name, depth)


def _join_lines(text: str) -> Iterable[tuple[int, str]]:
    """Lines, with those that a backslash continues in one; two backslashes are none."""
    begun, kept = 0, ""
    for number, line in enumerate(split_lines(text), start=1):
        begun = begun or number
        bare = line.rstrip()
        backslashes = len(bare) - len(bare.rstrip("\\"))
        if backslashes == 1 and _COMMENT.search(line) is None:
            kept += bare[:-1] + " "
            continue
        yield begun, kept + line
        begun, kept = 0, ""
    if kept:
        yield begun, kept


def _parse_pairs(content: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for match in _PAIR.finditer(content):
        key = match[1].lower()
        if key in _KINDS and key in pairs:
            key = TWO_RECORDS
        pairs[key] = match[2] if match[2] is not None else (match[3] or "")
    return pairs
