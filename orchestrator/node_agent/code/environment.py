"""Python environments built from a requirements file, one directory per digest, shared by runs."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

from orchestrator.node_agent.base.agent_errors import ENVIRONMENT, AgentFault
from orchestrator.node_agent.base.login import login_environment
from orchestrator.node_agent.base.node_layout import write_atomically
from orchestrator.node_agent.base.wire import read_field, read_strings
from orchestrator.node_agent.code.told_process import BuildFailed, run_told
from orchestrator.node_agent.facts.interpreter import MAX_MODULES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.node_agent.base.call import Context

# Compiling every module takes longer than the rest of an installation, and ranks import few of
# them: those are compiled when they are first imported.
PIP_OPTIONS = (
    "--no-input",
    "--disable-pip-version-check",
    "--progress-bar=off",
    "--no-color",
    "--no-compile",
)
# A name with a hyphen is that of a distribution, which may have no module of its own.
IMPORT_ALL = (
    "import importlib, sys\n"
    "for name in sys.argv[1:]:\n"
    "    try:\n"
    "        '-' in name or importlib.import_module(name)\n"
    "    except Exception:\n"
    "        pass\n"
)


def build_environment(
    context: Context, request: Mapping[str, Any], requirements: bytes
) -> dict[str, Any]:
    """``{"digest", "base", "modules"}`` -> the environment's interpreter, which has imported those
    modules once. Builders of the same digest wait for each other.

    It is built in place, as its scripts hold its path; the marker, written last, makes it count.
    """
    digest = read_field(request, "digest", str)
    base = os.path.expanduser(read_field(request, "base", str))
    modules = read_strings(request, "modules", MAX_MODULES, [])
    place = context.layout.environment(digest)
    interpreter = os.path.join(place, "venv", "bin", "python")
    ready = os.path.join(place, "ready")
    with context.layout.locked(f"environment-{digest}"):
        if os.path.exists(ready):
            os.utime(place)
            return {"interpreter": interpreter, "built": False}
        shutil.rmtree(place, ignore_errors=True)
        os.mkdir(place, 0o700)
        wanted = os.path.join(place, "requirements.txt")
        write_atomically(wanted, requirements)
        install = [interpreter, "-m", "pip", "install", *PIP_OPTIONS, "-r", wanted]
        for argv in ([base, "-m", "venv", os.path.join(place, "venv")], install):
            _run(context, digest, argv)
        _import_once(context, digest, [interpreter, "-I", "-c", IMPORT_ALL, *modules])
        write_atomically(ready, b"")
    return {"interpreter": interpreter, "built": True}


def _import_once(context: Context, digest: str, argv: list[str]) -> None:
    """Compile what ranks import, before many of them would do it at the same time. What cannot be
    imported is no fault yet: ranks may get variables that it needs.
    """
    with suppress(AgentFault):
        _run(context, digest, argv)


def _run(context: Context, digest: str, argv: list[str]) -> None:
    """Run to its end, telling each line. Raises :class:`AgentFault` if it fails."""
    try:
        run_told(context, {"event": "environment", "digest": digest}, argv, _builder_environment())
    except BuildFailed as error:
        raise AgentFault(ENVIRONMENT, f"{' '.join(argv[:3])} {error}") from error


def _builder_environment() -> dict[str, str]:
    """pip's own settings count: they say which index the owner of this node trusts."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return {**login_environment(), **settings, "PYTHONUNBUFFERED": "1"}
