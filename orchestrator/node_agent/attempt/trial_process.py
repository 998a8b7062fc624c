"""Trials: processes that run for a moment before the ranks do, such as a collective over all nodes.

They carry the attempt's markers, so that a sweep finds them, and end at their deadline, with the
agent, when one of them fails, or when they are told to. The attempt itself need not exist yet.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import select
import signal
import subprocess
import threading
import time

from orchestrator.node_agent.attempt.launch import fill_placeholders
from orchestrator.node_agent.base import lease_file as lease
from orchestrator.node_agent.base.agent_errors import BUSY, AgentFault
from orchestrator.node_agent.base.node_layout import check_name, private_folder
from orchestrator.node_agent.base.wire import read_field, read_seconds
from orchestrator.node_agent.code.told_process import tethered_argv
from orchestrator.node_agent.containers.container_jobs import (
    forget_engine,
    record_engine,
    release_job,
)
from orchestrator.node_agent.process.children import outcome_of
from orchestrator.node_agent.process.processes import marked_processes, sweep_processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.node_agent.base.call import Context
    from orchestrator.node_agent.base.node_layout import AttemptLayout, NodeLayout, RunLayout

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")
MAX_S = 600.0
MAX_TRIALS = 8
MAX_LINE_BYTES = 1024
KEPT_LINES = 24
READ_BYTES = 65536
POLL_S = 0.05
# A process that fails makes the others fail: they may say so, too.
LAST_WORDS_S = 1.0
# What does not end within this after KILL waits in the kernel; nobody waits for it.
UNKILLABLE_S = 5.0
SWEEP_S = 5.0


class OutputLines:
    """The last lines of a stream, each cut at ``MAX_LINE_BYTES``."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.open = True
        self._kept: collections.deque[bytes] = collections.deque(maxlen=KEPT_LINES)
        self._rest = b""
        os.set_blocking(fd, False)

    def read(self) -> None:
        """Take what is there."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.open = False
        *lines, rest = (self._rest + data).split(b"\n")
        self._kept.extend(line[:MAX_LINE_BYTES] for line in lines if line.strip())
        self._rest = rest[:MAX_LINE_BYTES]

    def texts(self) -> list[str]:
        rest = [self._rest] if self._rest.strip() else []
        return [line.decode(errors="replace") for line in [*self._kept, *rest]][-KEPT_LINES:]


class Tried:
    """One process: the leader of its own process group, tethered to the agent."""

    def __init__(self, label: str, argv: list[str], env: Mapping[str, str], cwd: str) -> None:
        self.label = label
        self.told = False
        self.status: int | None = None
        self._process = subprocess.Popen(
            tethered_argv(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.out, self.err = (
            OutputLines(s.fileno()) for s in (self._process.stdout, self._process.stderr)
        )

    @property
    def running(self) -> bool:
        return self.status is None

    @property
    def failed(self) -> bool:
        return self.status not in (None, 0)

    def kill(self) -> None:
        """The whole group; its leader is not reaped yet, so that the number is still its own."""
        if self.running:
            self.told = True
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> None:
        """If it is over: end what it left in its group, then let go of its number."""
        if not self.running:
            return
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        if os.waitid(os.P_PID, self.pid, flags) is None:
            return
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        self.status = -code if code < 0 else code << 8

    def close(self) -> None:
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def told_of(self) -> dict[str, Any]:
        lost = {"lost": "it could not be killed"}
        return {
            "label": self.label,
            "outcome": lost if self.status is None else outcome_of(self.status),
            "by_us": self.told,
            "out": self.out.texts(),
            "err": self.err.texts(),
        }


class Trial:
    """The processes of one trial, and whether it is to end."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.processes: list[Tried] = []

    def follow(self, deadline: float) -> None:
        """Read what they write until all are over; end them when it is time."""
        limit = deadline
        while any(process.running for process in self.processes):
            now = time.monotonic()
            if any(process.failed for process in self.processes):
                limit = min(limit, now + LAST_WORDS_S)
            if self.ended.is_set():
                limit = min(limit, now)
            if now >= limit + UNKILLABLE_S:
                break
            if now >= limit:
                for process in self.processes:
                    process.kill()
            self._read(POLL_S)
            for process in self.processes:
                process.reap()
        self._read(0.0)

    def _read(self, wait_s: float) -> None:
        streams = [s for process in self.processes for s in (process.out, process.err) if s.open]
        ready = select.select([stream.fd for stream in streams], [], [], wait_s)[0]
        for stream in streams:
            if stream.fd in ready:
                stream.read()


def run_trial(
    context: Context, layout: NodeLayout, request: Mapping[str, Any]
) -> tuple[dict[str, Any], bytes]:
    """Run ``processes`` for at most ``deadline_s``; how each ended and its last lines."""
    run = layout.run(request.get("run"), request.get("node"))
    attempt = run.attempt(request.get("attempt"))
    claim = lease.check_epoch(request)
    name = check_name(request.get("trial"), "name of a trial", NAME)
    deadline = time.monotonic() + read_seconds(request, "deadline_s", 0.1, MAX_S)
    wanted = fill_placeholders(layout, run, attempt, request)[1]
    engine = read_field(request, "engine", str, None)
    tried = _enter(context, name)
    try:
        # Under the run's lock: a sweep that follows finds all of them, one before keeps us out.
        with lease.claimed_run(run, claim):
            if engine:
                private_folder(attempt.root)
                record_engine(attempt, engine)
            for process in wanted:
                started = Tried(process["label"], process["argv"], process["env"], run.root)
                tried.processes.append(started)
                context.builders.add(started.pid)
        tried.follow(deadline)
    finally:
        _leave(context, name, tried)
        if engine:
            _leave_engine(
                run, attempt, all_well=not any(p.told or p.status for p in tried.processes)
            )
    told = [process.told_of() for process in tried.processes]
    return {}, json.dumps({"processes": told}).encode()


def _leave_engine(run: RunLayout, attempt: AttemptLayout, *, all_well: bool) -> None:
    """Containers of processes that ended by themselves went with them; others are removed. What is
    still there then is found by the run's sweep: its record stays.

    An engine that is killed while it starts a container forgets what runs in it (podman 4.3): that
    is ended by its marker. Before the launch the run has no other processes here.
    """
    if all_well:
        forget_engine(attempt)
    else:
        sweep_processes(lambda: marked_processes(run.root), SWEEP_S)
        release_job(attempt)
        sweep_processes(lambda: marked_processes(run.root), SWEEP_S)
    with contextlib.suppress(OSError):
        os.rmdir(attempt.root)


def end_trial(context: Context, request: Mapping[str, Any]) -> dict[str, Any]:
    """Let the trial of that name end now, if there is one; its own answer says when it has."""
    name = check_name(request.get("trial"), "name of a trial", NAME)
    with context.lock:
        known = context.trials.get(name)
    if known is not None:
        known.ended.set()
    return {"known": known is not None}


def _enter(context: Context, name: str) -> Trial:
    with context.lock:
        if name in context.trials or len(context.trials) >= MAX_TRIALS:
            raise AgentFault(BUSY, f"trial {name} is under way already, or {MAX_TRIALS} others are")
        context.trials[name] = begun = Trial()
        return begun


def _leave(context: Context, name: str, tried: Trial) -> None:
    for process in tried.processes:
        process.kill()
        process.reap()
        context.builders.discard(process.pid)
        process.close()
    with context.lock:
        del context.trials[name]
