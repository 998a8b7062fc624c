"""The sending processes of one stage, started together, watched, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

from orchestrate_serving.failures import ServingError

from ..base.job import Job

PROGRAM = Path(__file__).parents[1] / "client" / "sender_process.py"
READY_S = 60.0
# Between the word that all may begin and the beginning.
LEAD_S = 0.05
# What a process may take to end after its last request's time-out.
END_S = 15.0
MAX_LINE_BYTES = 64 * 1024


INVALID = "OR-LOAD-005"


class LoadError(ServingError):
    """The load could not be sent, or is not the one that was asked for."""


class SenderError(RuntimeError):
    """A sending process that ended before its load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What all processes of a stage have done so far; times are seconds from its start."""

    at_s: float = 0.0
    due: int = 0
    sent: int = 0
    completed: int = 0
    failed: int = 0
    in_flight: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    ttft_s: float = 0.0
    first_tokens: int = 0
    cpu_s: float = 0.0
    peak_kib: int = 0

    def plus(self, entry: dict[str, Any]) -> Totals:
        """With what one process reports."""
        sums = {name: getattr(self, name) + entry[name] for name in _SUMS}
        return replace(self, **sums, at_s=max(self.at_s, entry["at"]))


_SUMS = (
    "due sent completed failed in_flight output_tokens prompt_tokens ttft_s first_tokens cpu_s "
    "peak_kib"
).split()


@dataclass(slots=True)
class _Process:
    process: asyncio.subprocess.Process
    latest: dict[str, Any] = field(default_factory=dict)
    news: bool = False


class Fleet:
    """``on_totals`` sees each half second what all processes have done; :meth:`stop` ends early."""

    def __init__(self, job: Job, processes: int, on_totals: Callable[[Totals], None]) -> None:
        self._job, self._count, self._on_totals = job, processes, on_totals
        self._members: list[_Process] = []
        self.start_s = 0.0
        self._stopped = False

    async def run(self) -> Totals:
        """The whole stage. Raises :class:`SenderError`, ``OSError``."""
        try:
            for place in range(self._count):
                self._members.append(await self._start(place))
            async with asyncio.timeout(READY_S):
                for member in self._members:
                    await self._read(member)
            if self._stopped:
                return Totals()
            self.start_s = monotonic() + LEAD_S
            for member in self._members:
                self._tell(member, f"{self.start_s!r}\n")
            await asyncio.gather(*(self._follow(member) for member in self._members))
            return self._totals()
        except TimeoutError:
            raise SenderError(f"no sending process is ready after {READY_S:g} s") from None
        finally:
            await self._end()

    def stop(self) -> None:
        """Send nothing more, and do not wait for open answers."""
        self._stopped = True
        for member in self._members if self.start_s else ():
            self._tell(member, "stop\n")

    async def _start(self, place: int) -> _Process:
        own = replace(
            self._job,
            member=self._job.member * self._count + place,
            members=self._job.members * self._count,
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROGRAM),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=MAX_LINE_BYTES,
        )
        member = _Process(process)
        self._tell(member, own.to_json() + "\n")
        return member

    @staticmethod
    def _tell(member: _Process, line: str) -> None:
        if member.process.stdin is not None and not member.process.stdin.is_closing():
            member.process.stdin.write(line.encode())

    async def _read(self, member: _Process) -> dict[str, Any]:
        """Its next line. Raises :class:`SenderError` when there is none."""
        assert member.process.stdout is not None
        line = await member.process.stdout.readline()
        if not line:
            status = await member.process.wait()
            raise SenderError(f"a sending process ended with status {status} before its load")
        entry: dict[str, Any] = json.loads(line)
        return entry

    async def _follow(self, member: _Process) -> None:
        while not member.latest.get("over"):
            member.latest, member.news = await self._read(member), True
            # A process that is over says nothing more: the others do not wait for it.
            if all(each.news or each.latest.get("over") for each in self._members):
                for each in self._members:
                    each.news = False
                self._on_totals(self._totals())

    def _totals(self) -> Totals:
        totals = Totals()
        for member in self._members:
            totals = totals.plus(member.latest)
        return totals

    async def _end(self) -> None:
        for member in self._members:
            if member.process.stdin is not None:
                member.process.stdin.close()
        for member in self._members:
            try:
                async with asyncio.timeout(END_S):
                    await member.process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    member.process.kill()
                await member.process.wait()
