"""Who runs a node's ranks under Ray, and how they ended: written by it, read by the node's process.

Its parent is a worker of Ray's, so that the node's own process is not told of its end.
"""

from __future__ import annotations

import json
import os

from orchestrator.node_agent.base.node_layout import write_atomically
from orchestrator.node_agent.process.processes import is_alive, send_signal
from orchestrator.node_agent.process.rank_shim import start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_BYTES = 1024 * 1024
BROKEN = (AttributeError, KeyError, OSError, TypeError, ValueError)


class Record:
    """One file; unreadable means that there is nobody yet."""

    def __init__(self, path: str) -> None:
        self._path = path

    @classmethod
    def of_attempt(cls, attempt: str) -> Record:
        return cls(os.path.join(attempt, "ranks", "ray.json"))

    def begin(self) -> None:
        """This process is the one."""
        self._write({})

    def end(self, codes: list[int]) -> None:
        self._write({"codes": codes})

    def _write(self, more: dict[str, Any]) -> None:
        me = os.getpid()
        record = {"pid": me, "start_time": start_time(me), **more}
        write_atomically(self._path, json.dumps(record).encode())

    @property
    def known(self) -> bool:
        return self._identity() is not None

    @property
    def running(self) -> bool:
        identity = self._identity()
        return identity is not None and is_alive(*identity)

    @property
    def codes(self) -> list[int] | None:
        """None if it did not come to an end by itself."""
        try:
            return [int(code) for code in self._read()["codes"]]
        except BROKEN:
            return None

    def send(self, number: int) -> None:
        """Signal it, if it still runs."""
        identity = self._identity()
        if identity is not None:
            send_signal(identity[0], identity[1], number)

    def _identity(self) -> tuple[int, int] | None:
        try:
            record = self._read()
            return int(record["pid"]), int(record["start_time"])
        except BROKEN:
            return None

    def _read(self) -> dict[str, Any]:
        with open(self._path) as file:
            record: dict[str, Any] = json.loads(file.read(MAX_BYTES))
        return record
