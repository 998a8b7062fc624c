"""Engines of containers on a node: where they are, and what they say."""

from __future__ import annotations

import re
import shutil
import subprocess

from orchestrator.node_agent.base.agent_errors import BAD_REQUEST, AgentFault, no_answer_reason
from orchestrator.node_agent.base.login import engine_environment
from orchestrator.node_agent.base.site_tools import add_folders, run_tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NO_CONTAINER = "OR-AGENT-CONTAINER"
ENGINES = frozenset({"podman", "docker", "apptainer", "enroot"})
# Where sites put engines when they are not on the PATH of a command over SSH.
FOLDERS = ("/usr/bin", "/usr/local/bin", "/opt/apptainer/bin", "/opt/apptainer/latest/bin")
COMMAND_S = 60.0  # the first command of a rootless podman after a boot may take seconds
MAX_OUTPUT = 1024 * 1024
KEPT_CHARACTERS = 600
LOG_LINE = re.compile(r'^time="[^"]*" level=(?P<level>\w+) msg=')


class EngineError(Exception):
    """An engine is missing, failed, or did not answer; in its own words."""


def check_engine(name: str) -> str:
    """``name`` if it is that of an engine."""
    if name not in ENGINES:
        raise AgentFault(BAD_REQUEST, "not an engine of containers")
    return name


def environment() -> dict[str, str]:
    """What engines get: the login's variables, and their own settings."""
    return add_folders(engine_environment(), FOLDERS)


def find_program(name: str) -> str:
    """The path of an engine. Raises :class:`EngineError`."""
    found = shutil.which(check_engine(name), path=environment()["PATH"])
    if found is None:
        raise EngineError("not installed on this node")
    return found


def is_podman() -> bool:
    """Whether what is called docker here is podman, as Debian's podman-docker has it."""
    try:
        return ask([find_program("docker"), "--version"]).startswith("podman")
    except EngineError:
        return False


def ask(argv: Sequence[str], within_s: float = COMMAND_S) -> str:
    """What an engine prints. Raises :class:`EngineError`."""
    try:
        done = run_tool(argv, within_s, environment())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(no_answer_reason(error)) from error
    if done.returncode:
        raise EngineError(complaint(done.stderr[-MAX_OUTPUT:].decode(errors="replace")))
    return done.stdout[:MAX_OUTPUT].decode(errors="replace")


def complaint(text: str) -> str:
    """What an engine complains of at the end of ``text``, without its warnings and progress."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if not _is_warning(line)]
    told = [line for line in errors if line.startswith("Error:")] or errors or lines
    return "; ".join(told[-3:])[-KEPT_CHARACTERS:]


def _is_warning(line: str) -> bool:
    found = LOG_LINE.match(line)
    return found is not None and found.group("level") not in ("error", "fatal")
