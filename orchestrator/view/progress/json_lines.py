"""JSON lines for scripts: ``event`` while running, then exactly one ``result``, also on failure."""

from __future__ import annotations

import json
import math
from typing import Any

from orchestrator.adapters.report.result_json import to_object
from orchestrator.core.base.codec import to_json
from orchestrator.core.run.events import Event
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.result import Result
from orchestrator.parsing.replies.display_text import LineDecoder
from orchestrator.view.terminal.log_lines import source_of
from orchestrator.view.terminal.terminal import LineWriter


class JsonLines:
    """An observer that writes ``{"type": "event", "time", "run", "event": {...}}``.

    With ``follow``, log lines come as events of type ``Log``. The result is written once, by
    ``write_result``, after everything else.
    """

    def __init__(self, out: LineWriter, *, run_id: str, follow: bool = False) -> None:
        self._out = out
        self._run_id = run_id
        self._follow = follow
        self._time = 0.0
        self._streams: dict[tuple[str, str], LineDecoder] = {}
        self._done = False

    def on_event(self, at: float, event: Event, state: RunState) -> None:
        del state
        self._time = at
        self._write_event(to_json(event))

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        if self._follow:
            decoder = self._streams.setdefault((node, file), LineDecoder())
            self._write_log(node, file, decoder.feed(chunk))

    def on_note(self, text: str) -> None:
        self._write_event({"type": "Note", "text": text})

    def close(self, result: Result | None) -> None:
        del result
        for (node, file), decoder in self._streams.items():
            self._write_log(node, file, decoder.finish())
        self._streams.clear()

    def write_result(self, result: Result) -> None:
        """The last line. A second call does nothing."""
        if not self._done:
            self._done = True
            self._out.line(dump_line({"type": "result", **to_object(result)}))

    def _write_log(self, node: str, file: str, lines: list[str]) -> None:
        source = source_of(node, file)
        where = {"node": node, "rank": source.rank if source else None, "file": file}
        for line in lines:
            self._write_event({"type": "Log", **where, "line": line})

    def _write_event(self, event: dict[str, Any]) -> None:
        record = {"type": "event", "time": self._time, "run": self._run_id, "event": event}
        self._out.line(dump_line(record))


def dump_line(value: object) -> str:
    """One line of strict JSON: ASCII, and null for numbers that are not finite."""
    return json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
