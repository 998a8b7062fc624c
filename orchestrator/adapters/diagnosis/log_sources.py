"""Which files to read, and whose logs they are by their names."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from orchestrator.core.base.errors import UsageError
from orchestrator.core.diagnosis.diagnosis_model import LogSource
from orchestrator.core.launchers import SCHEDULERS

MAX_FILES = 10_000
# No logs, though they lie beside them.
_OTHERS = frozenset(
    ".arrow .bin .gz .html .jpg .json .jsonl .md .npy .npz .parquet .pdf .pickle .pkl .png .pt "
    ".pth .py .safetensors .sqlite .svg .tar .toml .xz .yaml .yml .zip .zst".split()
)
_OURS = re.compile(r"(?:rank-(?P<rank>\d{1,7})|launcher)\.(?:out|err)")
_ATTEMPT = re.compile(r"attempt-\d{1,5}")
_TORCHRUN = re.compile(r"(?:^|/)attempt_\d{1,5}/(?P<rank>\d{1,7})/std(?:out|err)\.log$")
_RANKS = (
    re.compile(r"rank[-_.]?(?P<rank>\d{1,7})(?!\d)", re.IGNORECASE),
    re.compile(r"(?:^|[-_.])(?:task|proc|r|t)[-_]?(?P<rank>\d{1,7})(?=[-_.]|$)"),
    *(re.compile(f"^{s.logs.file}") for s in SCHEDULERS if s.logs.file),
)
_NODE = re.compile(
    r"(?:^|[-_.])(?P<node>(?:node|gpu|host|worker|dgx)[a-z-]{0,20}\d{1,6})(?=[-_.]|$)"
)


class LogInput(NamedTuple):
    """A file to read."""

    path: Path
    source: LogSource


def log_sources(path: Path, shown: str) -> list[LogInput]:
    """The logs at ``path``: itself, or of a folder every regular file below it that may be one.
    Links are not followed. ``shown`` is how people call it. Raises UsageError for more than
    ``MAX_FILES``: a cause that is found in some of the logs may not be the first.
    """
    if not path.is_dir():
        return [LogInput(path, source_of(shown))]
    found = list(islice(_files_below(path), MAX_FILES + 1))
    if len(found) > MAX_FILES:
        raise UsageError(
            f"holds more than {MAX_FILES:,} files that may be logs",
            id="diagnose.files",
            where=path,
            remedy="name the folder of one job's logs",
        )
    names = ((Path(shown) / file.relative_to(path)).as_posix() for file in found)
    return [LogInput(file, source_of(name)) for file, name in zip(found, names, strict=True)]


def _files_below(path: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(path):
        folders.sort()
        yield from filter(_may_be_log, (Path(folder, name) for name in sorted(names)))


def source_of(name: str) -> LogSource:
    """Whose log a file is, as far as its name tells."""
    parts = name.split("/")
    if (ours := _OURS.fullmatch(parts[-1])) is not None:
        above = [part for part in parts[:-1] if not _ATTEMPT.fullmatch(part)]
        node = above[-1] if above and above[-1] not in {"logs", ".", ".."} else ""
        return LogSource(name=name, node=node, rank=_parse_number(ours["rank"]))
    if (torchrun := _TORCHRUN.search(name)) is not None:
        return LogSource(name=name, rank=_parse_number(torchrun["rank"]))
    found = (pattern.search(parts[-1]) for pattern in _RANKS)
    ranks = [_parse_number(match["rank"]) for match in found if match is not None]
    nodes = [match["node"] for match in _NODE.finditer(parts[-1])]
    return LogSource(name=name, rank=next(iter(ranks), None), node=next(iter(nodes), ""))


def _parse_number(text: str | None) -> int | None:
    return int(text) if text else None


def _may_be_log(path: Path) -> bool:
    try:
        regular = stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
    return regular and path.suffix.lower() not in _OTHERS
