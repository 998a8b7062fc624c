"""Python stacks of a rank, by py-spy where it is installed: it reads them from outside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from orchestrator.node_agent.base.agent_errors import no_answer_reason
from orchestrator.node_agent.base.login import login_environment
from orchestrator.node_agent.hang.proc_status import command_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 6.0
MAX_OUTPUT_BYTES = 512 * 1024
MAX_FRAMES = 24
MAX_FRAME_CHARACTERS = 200
THREAD = re.compile(r"Thread (?:0x)?(\w+) \([^)]*\)(?:: \"(.*)\")?")


def find_program(pid: int, environment: Mapping[str, str]) -> str | None:
    """py-spy beside the rank's interpreter, on the rank's PATH, or on the login's."""
    places = [os.path.dirname(word) for word in command_line(pid)[:1] if os.path.isabs(word)]
    places += [environment.get("PATH", ""), login_environment().get("PATH", "")]
    return shutil.which("py-spy", path=os.pathsep.join(filter(None, places)))


def dump_stacks(program: str, pid: int) -> tuple[str, str]:
    """(what py-spy printed, why it could not). The process goes on meanwhile."""
    argv = [program, "dump", "--nonblocking", "--pid", str(pid)]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env=login_environment(),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"py-spy: {no_answer_reason(error)}"
    text = done.stdout[:MAX_OUTPUT_BYTES].decode(errors="replace")
    if done.returncode:
        said = done.stderr[-300:].decode(errors="replace").strip()
        return text, f"py-spy ended with {done.returncode}: {said}"
    return text, ""


def main_thread(text: str, pid: int) -> list[str]:
    """The frames of the main thread, innermost first, as ``function (file:line)``."""
    threads: dict[str, list[str]] = {}
    frames: list[str] = []
    for line in text.splitlines():
        match = THREAD.match(line)
        if match:
            name = "main" if match.group(2) == "MainThread" else match.group(1)
            frames = threads.setdefault("main" if name == str(pid) else name, [])
        elif line.startswith("    ") and threads and len(frames) < MAX_FRAMES:
            frames.append(line.strip()[:MAX_FRAME_CHARACTERS])
    return threads.get("main") or next(iter(threads.values()), [])
