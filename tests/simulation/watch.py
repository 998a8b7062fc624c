"""The model of a watch: what an attempt's files hold beyond the cursors, and again as they grow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.simulation.disk import AttemptFiles

if TYPE_CHECKING:
    from tests.simulation.agent import FakeAgent

DELAY_S = 0.04
ALIVE_CHECK_S = 0.5
# Small, so that logs come in pieces and trail behind the records, as megabytes do.
CHUNK_BYTES = 80


class Watch:
    """Belongs to one agent, and ends with it."""

    def __init__(
        self, agent: FakeAgent, files: AttemptFiles, id: str, cursors: Mapping[str, int]
    ) -> None:
        self._agent = agent
        self._files = files
        self._id = id
        self._cursors = dict(cursors)
        self._scheduled = False
        self._over = False

    def start(self) -> None:
        self._files.watchers.append(self._changed)
        self._changed()

    def close(self) -> None:
        self._over = True
        if self._changed in self._files.watchers:
            self._files.watchers.remove(self._changed)

    def _changed(self) -> None:
        if not self._scheduled and not self._over:
            self._scheduled = True
            self._agent.node.world.call_later(DELAY_S * self._agent.node.slow, self._poll)

    def _poll(self) -> None:
        self._scheduled = False
        if self._over:
            return
        moved = self._poll_events()
        for name, data in sorted(self._files.reports.items()):
            moved |= self._poll_file("report", name, data)
        for name, data in sorted(self._files.logs.items()):
            moved |= self._poll_file("log", name, data)
        if moved:
            self._changed()
        elif self._files.supervisor is not None and not self._agent.supervises(self._files):
            delay_s = 0.0 if self._files.concluded else ALIVE_CHECK_S
            self._agent.node.world.call_later(delay_s, self._say_goodbye)

    def _poll_events(self) -> bool:
        start = first = self._cursors.get("events", 0)
        for line in bytes(self._files.events[start:]).splitlines(keepends=True):
            end = start + len(line)
            self._send("supervisor", record=json.loads(line), offset=start, next=end)
            self._cursors["events"] = start = end
        return start > first

    def _poll_file(self, event: str, name: str, data: bytearray) -> bool:
        """Reports go in whole lines, logs as they come."""
        start = self._cursors.get(name, 0)
        new = bytes(data[start : start + (CHUNK_BYTES if event == "log" else 10 * CHUNK_BYTES)])
        new = new if event == "log" else new[: new.rfind(b"\n") + 1]
        if new:
            end = start + len(new)
            self._send(event, new, file=name, offset=start, next=end)
            self._cursors[name] = end
        return bool(new)

    def _say_goodbye(self) -> None:
        if not self._over:
            self._send("drained" if self._files.concluded else "supervisor-lost")
            self.close()

    def _send(self, event: str, payload: bytes = b"", **fields: Any) -> None:
        frame = {"event": event, "watch": self._id, "cost": len(payload) + 256, **fields}
        self._agent.event(frame, payload)
