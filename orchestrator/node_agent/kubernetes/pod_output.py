"""What a pod shows while its ranks run, and how it ends: on standard output, by its exit code."""

from __future__ import annotations

import json
import os
import re
import signal

from orchestrator.node_agent.attempt.watch import Credit
from orchestrator.node_agent.base.wire import FrameWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

RANK_FILE = re.compile(r"rank-(\d{1,7})\.(?:out|err|jsonl)\Z")
MAX_LINE_BYTES = 64 * 1024
ENDINGS = frozenset({"rank-exited", "process-exited"})
SUCCESS = {"exited": 0}
FAILED, SIGNALLED = 1, 128


class PodOutput(FrameWriter):
    """Stands for the coordinator in a watch: writes what ranks print and their final figures, and
    keeps what the supervisor records.

    Lines begin with their rank as torch writes it, which ``orchestrate diagnose`` understands.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.records: list[Mapping[str, Any]] = []
        self.credit: Credit | None = None
        self._rests: dict[str, bytes] = {}

    def send(self, frame: Mapping[str, Any], payload: bytes = b"") -> None:
        """One frame of the watch. Raises ``OSError`` when nobody reads standard output."""
        event = frame.get("event")
        if event == "log":
            self._write_log(str(frame["file"]), payload)
        elif event == "report":
            figures = [figure.encode() for figure in final_figures(payload)]
            self._write_lines(str(frame["file"]), figures)
        elif event == "supervisor" and frame["record"].get("event") in (*ENDINGS, "concluded"):
            self.records.append(frame["record"])
        if self.credit is not None:
            self.credit.grant(int(frame["cost"]))

    def _write_log(self, file: str, data: bytes) -> None:
        """Whole lines; of a line without an end so much as is kept of it."""
        *lines, rest = (self._rests.pop(file, b"") + data).split(b"\n")
        while len(rest) > MAX_LINE_BYTES:
            lines.append(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        if rest:
            self._rests[file] = rest
        self._write_lines(file, lines)

    def _write_lines(self, file: str, lines: list[bytes]) -> None:
        rank = RANK_FILE.match(file)
        head = f"[rank{rank.group(1)}]: " if rank else f"[{file.rpartition('.')[0]}]: "
        view = memoryview(b"".join(head.encode() + line + b"\n" for line in lines))
        while view:
            view = view[os.write(self._fd, view) :]

    def finish(self) -> None:
        """Write what had no line end."""
        for file, rest in list(self._rests.items()):
            self._write_lines(file, [rest])
        self._rests.clear()


def final_figures(reports: bytes) -> Iterator[str]:
    """What ranks report as final, in words; a coordinator would put it into the result.

    Nothing of it is trusted: a line that is no report is left out.
    """
    for line in reports.splitlines():
        try:
            told = json.loads(line)
            if told["type"] == "metric" and told["step"] is None:
                yield " ".join(f"{told['name']} = {told['value']:.6g} {told['unit']}".split())
        except (ValueError, KeyError, TypeError):
            continue


def judge(records: list[Mapping[str, Any]], stopped: int) -> tuple[int, str]:
    """(exit code, why), from what the supervisor recorded. ``stopped``: the code for an end that
    was asked for; 0 = nobody did.

    A rank that failed by itself gives its own code, or 128 and its signal, as shells do.
    """
    concluded = next((r for r in records if r["event"] == "concluded"), None)
    failed = next((r for r in records if r["event"] in ENDINGS and _is_failure(r)), None)
    if failed is not None:
        return _code(failed["outcome"]), _describe(failed)
    if stopped:
        return stopped, "the ranks were stopped"
    if concluded is None:
        return FAILED, "the supervisor ended without a conclusion; see supervisor.log"
    if not concluded["clean"]:
        return FAILED, f"processes were left: {concluded['survivors']}"
    return 0, ""


def _is_failure(record: Mapping[str, Any]) -> bool:
    return record["outcome"] != SUCCESS and not record["by_us"]


def _code(outcome: Mapping[str, Any]) -> int:
    if "signalled" in outcome:
        return SIGNALLED + int(outcome["signalled"])
    return int(outcome.get("exited", FAILED)) or FAILED


def _describe(record: Mapping[str, Any]) -> str:
    who = f"rank {record['rank']}" if "rank" in record else record["label"]
    outcome = record["outcome"]
    how = f"ended with exit code {outcome.get('exited', '?')}"
    if "signalled" in outcome:
        how = f"was killed by {_signal_name(int(outcome['signalled']))}"
    last = record.get("last_line", "")
    return f"{who} {how}" + (f": {last}" if last else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
