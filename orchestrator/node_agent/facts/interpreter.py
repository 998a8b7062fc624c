"""Which interpreter a node's ranks run under: found by kind, and asked for its modules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

from orchestrator.node_agent.base.activation import in_force
from orchestrator.node_agent.base.agent_errors import ABSENT, BAD_REQUEST, AgentFault, shorten_value
from orchestrator.node_agent.base.login import expand_path, login_environment
from orchestrator.node_agent.base.wire import read_field, read_strings
from orchestrator.node_agent.facts.module_versions import find_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

MAX_MODULES = 64
CONDA_S = 20.0
# Where installers put conda, relative to the home directory or absolute.
CONDA_ROOTS = (
    "~/miniconda3",
    "~/miniforge3",
    "~/mambaforge",
    "~/anaconda3",
    "~/micromamba",
    "/opt/conda",
    "/opt/miniconda3",
    "/opt/miniforge3",
)


def resolve_interpreter(request: Mapping[str, Any]) -> dict[str, Any]:
    """``{"interpreter": {"kind", "value"}, "modules": [...]}`` -> its path, the modules found, and
    the variables of the environment that it belongs to.

    A bare name is the login's Python, whose environment is the login's, too.
    """
    asked = read_field(request, "interpreter", dict)
    kind, value = read_field(asked, "kind", str), read_field(asked, "value", str)
    path = _find(kind, value)
    notes: list[str] = []
    names = read_strings(request, "modules", MAX_MODULES, [])
    modules = find_modules([path], ["sys", *names], notes)
    if "sys" not in modules:
        raise AgentFault(ABSENT, f"{path} is no working Python: {'; '.join(notes)[:500]}")
    modules["python"] = modules.pop("sys")
    bare = kind == "interpreter" and "/" not in value
    return {
        "interpreter": path,
        "modules": modules,
        "environment": {} if bare else in_force(path),
    }


def _find(kind: str, value: str) -> str:
    if kind == "interpreter":
        return _program(value)
    if kind == "venv":
        return _program(os.path.join(value, "bin", "python"))
    if kind == "conda":
        return _conda(value)
    raise AgentFault(BAD_REQUEST, f"unknown kind of interpreter {shorten_value(kind)}")


def _program(value: str) -> str:
    """An absolute path. A virtual environment's python is a link that must not be followed."""
    found = shutil.which(expand_path(value), path=login_environment().get("PATH"))
    if found is None:
        raise AgentFault(ABSENT, f"no interpreter {shorten_value(value)} on this node")
    return os.path.abspath(found)


def _conda(value: str) -> str:
    """The interpreter of a conda environment given by name or by prefix."""
    if "/" in value or value.startswith(("~", "$")):
        return _program(os.path.join(value, "bin", "python"))
    tried = []
    for prefix in _prefixes(value):
        python = os.path.join(prefix, "bin", "python")
        tried.append(prefix)
        if os.access(python, os.X_OK):
            return python
    where = ", ".join(tried[:8])
    raise AgentFault(ABSENT, f"no conda environment {shorten_value(value)} (looked in {where})")


def _prefixes(name: str) -> Iterator[str]:
    roots = [os.path.expanduser(root) for root in CONDA_ROOTS]
    for root in roots:
        yield root if name == "base" else os.path.join(root, "envs", name)
    for prefix in _asked_conda():
        if os.path.basename(prefix) == name:
            yield prefix


def _asked_conda() -> list[str]:
    """What a conda on the PATH knows; nothing when there is none."""
    conda = shutil.which("conda", path=login_environment().get("PATH"))
    if conda is None:
        return []
    try:
        done = subprocess.run(
            [conda, "env", "list", "--json"],
            capture_output=True,
            check=False,
            timeout=CONDA_S,
            stdin=subprocess.DEVNULL,
            env=login_environment(),
        )
        envs = json.loads(done.stdout).get("envs", [])
    except (OSError, ValueError, AttributeError, subprocess.TimeoutExpired):
        return []
    return [prefix for prefix in envs if isinstance(prefix, str)]
