"""Nodes that misbehave: programs that take the place of the agent's start."""

from __future__ import annotations

import sys
from dataclasses import replace

from orchestrator.adapters.transport.local_process import LocalTransport
from orchestrator.adapters.transport.transport import Process
from orchestrator.core.base.command import Command

# Reads the greeting as the loader would, and leaves the header in `header`.
GREETED = """
import ast, json, sys, os, time
i, o = sys.stdin.buffer, sys.stdout.buffer
i.read(int(i.readline()))
header = ast.literal_eval(i.readline().decode())
nonce = header["nonce"].encode()
def say(data):
    o.write(data); o.flush()
texts = dict.fromkeys(("agent", "python", "boot_id", "hostname", "home", "workdir"), "x")
hello = {"event": "hello", "nonce": header["nonce"], "pid": 1, **texts}
hello = json.dumps(hello).encode() + b"\\n"
"""
WELCOME = GREETED + 'say(b"\\n" + nonce + b" have\\n" + hello)\n'


class FakeNode(LocalTransport):
    """Starts ``script`` in place of whatever was asked for."""

    def __init__(self, script: str) -> None:
        super().__init__("n1")
        self._script = script

    async def start(self, command: Command, *, timeout_s: float, has_input: bool = True) -> Process:
        argv = (sys.executable, "-I", "-S", "-c", self._script)
        return await super().start(
            replace(command, argv=argv), timeout_s=timeout_s, has_input=has_input
        )


class NoisyNode(LocalTransport):
    """Starts the real agent from a login shell that talks a lot first."""

    def __init__(self, noise: str) -> None:
        super().__init__("n1")
        self._noise = noise

    async def start(self, command: Command, *, timeout_s: float, has_input: bool = True) -> Process:
        argv = ("bash", "-c", f'{self._noise}; exec "$@"', "login", *command.argv)
        return await super().start(
            replace(command, argv=argv), timeout_s=timeout_s, has_input=has_input
        )
