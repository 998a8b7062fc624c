"""The flight recorder of torch's NCCL process groups: asks a rank for its record and reads it.

A rank that has TORCH_NCCL_DEBUG_INFO_PIPE_FILE writes its record when something is written to that
pipe. Records are pickles; nothing of them is ever executed: only the opcodes of plain containers,
numbers and texts are known here, so that a record cannot name a class or ask for memory.
"""

from __future__ import annotations

import json
import os
import pickletools
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

WAIT_S = 5.0
POLL_S = 0.05
MAX_RECORD_BYTES = 8 * 1024 * 1024
MAX_JSON_CHARACTERS = 8 * 1024 * 1024
MAX_JSON_CHUNKS = 1_000_000
MAX_GROUPS = 16
MAX_MEMBERS = 4096
PIPE = "TORCH_NCCL_DEBUG_INFO_PIPE_FILE"
PREFIXES = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")
# Opcodes by what they do; a number is how many items they take, None = down to the mark.
VALUES = frozenset(
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8".split()
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
PUT = frozenset({"BINPUT", "LONG_BINPUT", "MEMOIZE"})
GET = frozenset({"BINGET", "LONG_BINGET"})
TUPLES = {"TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
FILL = {"APPEND": 1, "APPENDS": None, "SETITEM": 2, "SETITEMS": None}


class _Stack:
    """What a pickle builds, from the opcodes of plain data alone."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def apply(self, name: str, value: Any) -> None:
        """Raises ``ValueError`` for an opcode that is not plain, ``IndexError`` for a torn one."""
        if name in VALUES:
            self._items.append(value)
        elif name in CONSTANTS:
            self._items.append(CONSTANTS[name])
        elif name in EMPTY:
            self._items.append(EMPTY[name]())
        elif name in PUT:
            self._memo[len(self._memo) if value is None else value] = self._items[-1]
        elif name in GET:
            self._items.append(self._memo[value])
        elif name == "MARK":
            self._marks.append(len(self._items))
        elif name in TUPLES:
            self._items.append(tuple(self._take(TUPLES[name])))
        elif name in FILL:
            self._fill(self._take(FILL[name]))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"{name} is not plain data")

    def _take(self, count: int | None) -> list[Any]:
        """The last ``count`` items; None = those above the last mark."""
        start = self._marks.pop() if count is None else len(self._items) - count
        items = self._items[start:]
        del self._items[start:]
        return items

    def _fill(self, items: list[Any]) -> None:
        container = self._items[-1]
        if isinstance(container, dict):
            container.update(zip(items[::2], items[1::2]))
        elif isinstance(container, list):
            container.extend(items)
        else:
            raise ValueError("items for what holds none")  # noqa: TRY004 - as any other torn record

    def result(self) -> Any:
        return self._items[-1]


def load_record(data: bytes) -> dict[str, Any]:
    """A record as plain data. Raises ``ValueError`` for anything else."""
    stack = _Stack()
    try:
        for opcode, value, _ in pickletools.genops(data):
            stack.apply(opcode.name, value)
        record = stack.result()
    except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"not a flight record: {error}") from error
    if not isinstance(record, dict):
        raise ValueError("not a flight record")  # noqa: TRY004 - what was read, not what was given
    return record


def as_json(record: Mapping[str, Any]) -> bytes | None:
    """The record for people and tools; None if it is longer than its bytes could make it."""
    chunks, size = [], 0
    try:
        for chunk in json.JSONEncoder().iterencode(record):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_JSON_CHARACTERS or len(chunks) > MAX_JSON_CHUNKS:
                return None
    except (TypeError, ValueError, RecursionError):
        return None
    return "".join(chunks).encode()


def request_record(
    rank: int, environment: Mapping[str, str], wait_s: float = WAIT_S
) -> bytes | None:
    """The record that the rank writes on request; else one that it left, as after a time-out."""
    path = record_path(rank, environment)
    if path is None:
        return None
    before = _version(path)
    if _trigger(environment.get(PIPE, ""), rank):
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            if _version(path) != before and (record := _read(path)) is not None:
                return record
            time.sleep(POLL_S)
    return _read(path)


def record_path(rank: int, environment: Mapping[str, str]) -> str | None:
    """Where the rank writes its record."""
    prefix = next((environment[name] for name in PREFIXES if environment.get(name)), None)
    return f"{prefix}{rank}" if prefix and os.path.isabs(prefix) else None


def _trigger(prefix: str, rank: int) -> bool:
    if not os.path.isabs(prefix):
        return False
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(f"{prefix}{rank}.pipe", flags)
    except OSError:
        return False
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode) and os.write(fd, b"1") == 1
    except OSError:
        return False
    finally:
        os.close(fd)


def _version(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def _read(path: str) -> bytes | None:
    """The record once it is complete: a pickle ends with a full stop."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        data = file.read(MAX_RECORD_BYTES + 1)
    return data if data.endswith(b".") and len(data) <= MAX_RECORD_BYTES else None


def group_progress(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How far the rank came in each process group: what ``core.evidence.Collective`` holds."""
    status, config = record.get("pg_status"), record.get("pg_config")
    if not isinstance(status, dict):
        return []
    config = config if isinstance(config, dict) else {}
    last = _last_operations(record.get("entries"))
    found = []
    for name, place in list(status.items())[:MAX_GROUPS]:
        about = config.get(name)
        about = about if isinstance(about, dict) else {}
        if isinstance(place, dict):
            found.append(
                {
                    "group": str(about.get("desc") or name)[:64],
                    "entered": _number(place.get("last_enqueued_collective")),
                    "completed": _number(place.get("last_completed_collective")),
                    "operation": last.get(str(name), ""),
                    "members": _members(about.get("ranks")),
                }
            )
    return found


def _last_operations(entries: object) -> dict[str, str]:
    """Process group -> its last collective, as ``all_reduce``."""
    last: dict[str, str] = {}
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and not entry.get("is_p2p"):
            group = entry.get("process_group")
            name = group[0] if isinstance(group, (list, tuple)) and group else entry.get("pg_id")
            operation = str(entry.get("profiling_name", "")).rpartition(":")[2]
            last[str(name)] = operation[:64]
    return last


def _members(text: object) -> list[int]:
    """``[0, 1]``, as the record writes it."""
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return []
    known = found if isinstance(found, list) else []
    return [rank for rank in known[:MAX_MEMBERS] if type(rank) is int]


def _number(value: object) -> int:
    return value if type(value) is int and 0 <= value < 1 << 53 else 0
