"""An attempt as a test drives it: launch, follow, look at what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.adapters.agent_client.channel import AgentChannel, AgentEvent, Reply
from tests.time_limits import Deadline, scaled

SOON_S = 15.0
Record = dict[str, Any]


class Attempt:
    """One attempt of one run on one node, and all that a watch has told of it."""

    def __init__(self, channel: AgentChannel, workdir: Path, run: str, node: str = "n1") -> None:
        self.channel = channel
        self.names: dict[str, Any] = {"run": run, "node": node, "attempt": 1}
        self.root = workdir / "node" / "runs" / run / node / "attempt-1"
        self.records: list[Record] = []
        self.files: dict[str, bytearray] = {}
        self.cursors: dict[str, int] = {}
        self.last_event = ""

    async def launch(self, *processes: Mapping[str, Any], **fields: Any) -> Reply:
        request: dict[str, Any] = {
            **self.names,
            "epoch": 1,
            "lease_s": 60.0,
            "grace_s": 2.0,
            "processes": list(processes),
            **fields,
        }
        return await self.channel.request("launch", request, timeout_s=scaled(SOON_S))

    async def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        reply = await self.channel.request(op, {**self.names, **fields}, timeout_s=scaled(30))
        return dict(reply.fields)

    async def watch(self, channel: AgentChannel | None = None, **fields: Any) -> str:
        self.channel = channel or self.channel
        request = {**self.names, "cursors": self.cursors, **fields}
        return await self.channel.watch(request, timeout_s=scaled(SOON_S))

    async def follow(self, until: Callable[[Attempt], bool], within_s: float = SOON_S) -> None:
        """Take events in until ``until`` holds. The watch must have begun."""
        async with asyncio.timeout(scaled(within_s)):
            if until(self):
                return
            async for event in self.channel.events():
                self._take(event)
                if until(self):
                    return

    async def to_end(self, within_s: float = SOON_S) -> Record:
        """Follow to the end; the ``concluded`` record."""
        await self.follow(lambda a: a.last_event in ("drained", "supervisor-lost"), within_s)
        assert self.last_event == "drained"
        return self.only("concluded")

    def _take(self, event: AgentEvent) -> None:
        self.last_event = event.name
        if event.name == "supervisor":
            self._advance("events", event.fields)
            self.records.append(event.fields["record"])
        elif event.name in ("log", "report", "exchange"):
            name = event.fields["file"]
            assert event.fields["next"] - event.fields["offset"] == len(event.payload)
            self._advance(name, event.fields)
            self.files.setdefault(name, bytearray()).extend(event.payload)

    def _advance(self, name: str, fields: Mapping[str, Any]) -> None:
        assert fields["offset"] == self.cursors.get(name, 0), "a gap or a repeat"
        self.cursors[name] = fields["next"]

    def of(self, event: str, **fields: Any) -> list[Record]:
        """The records of a kind that carry these fields."""
        return [
            r
            for r in self.records
            if r["event"] == event and all(r.get(k) == v for k, v in fields.items())
        ]

    def only(self, event: str, **fields: Any) -> Record:
        (record,) = self.of(event, **fields)
        return record

    def seen(self, event: str, count: int = 1, **fields: Any) -> bool:
        return len(self.of(event, **fields)) >= count


def rank(number: int, *argv: str, **env: str) -> dict[str, Any]:
    """A rank that the supervisor starts itself."""
    env = {"RANK": str(number), "LOCAL_RANK": str(number), **env}
    return {"label": f"rank-{number}", "rank": number, "argv": list(argv), "env": env}


def shell(number: int, script: str, **env: str) -> dict[str, Any]:
    return rank(number, "bash", "-c", script, **env)


def launcher(*argv: str, **env: str) -> dict[str, Any]:
    return {"label": "launcher", "rank": None, "argv": list(argv), "env": env}


def shimmed(number: int, script: str) -> str:
    """Shell text that runs ``script`` as rank ``number`` under the shim, as a launcher would."""
    words = f"python3 -I -S {{agent}}/process/rank_shim.py -- bash -c '{script}'"
    return f"RANK={number} LOCAL_RANK={number} {words}"


def running(run: str) -> list[int]:
    """Pids whose environment names ``run``. Written apart from the code that is tested."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"ORCHESTRATE_RUN_ID={run}".encode() in environment and state not in "ZX":
            found.append(int(entry.name))
    return found


def exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def eventually(condition: Callable[[], object], within_s: float = SOON_S) -> None:
    """Wait until ``condition`` holds; fail if it does not in time."""
    deadline = Deadline(within_s)
    while not condition():
        assert not deadline.passed, f"it did not come to pass within {deadline}"
        await asyncio.sleep(0.02)


def everything_below(path: Path) -> set[str]:
    return {str(found) for found in path.rglob("*") if "__pycache__" not in found.parts}


def command_lines() -> list[bytes]:
    """What anybody on this machine can see of every process's arguments."""
    lines = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            lines.append((entry / "cmdline").read_bytes())
    return lines
