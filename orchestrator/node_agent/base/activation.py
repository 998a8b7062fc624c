"""What activating a Python environment sets, for ranks that no shell activates it for.

A virtual environment or a conda environment brings programs of its own, which ranks call by name;
packages of conda also bring scripts (``etc/conda/activate.d/*.sh``) and its owner may have set
variables (``conda env config vars``, in ``conda-meta/state``). Their values stay on this node: they
may be secrets, so that plans only have ``{environment:NAME}`` in their place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

from orchestrator.node_agent.base.agent_errors import ENVIRONMENT, AgentFault, no_answer_reason
from orchestrator.node_agent.base.login import login_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SCRIPTS_S = 20.0
MAX_VARIABLES = 256
MAX_STATE_BYTES = 1024 * 1024
MAX_ERROR_CHARACTERS = 300
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
ACTIVATED = re.compile(r"\{environment:([A-Za-z_][A-Za-z0-9_]{0,127})\}")
# What a shell sets for itself.
OF_SHELLS = frozenset({"_", "SHLVL", "PWD", "OLDPWD"})
SOURCE = (
    'for script in "$1"/etc/conda/activate.d/*.sh; do\n'
    '  if [ -r "$script" ]; then . "$script" >/dev/null; fi\n'
    "done\n"
    'exec "$2" -I -S -c "$3"\n'
)
TELL = "import json,os;print('orchestrate-environment:'+json.dumps(dict(os.environ)))"
MARK = "orchestrate-environment:"


def in_force(interpreter: str) -> dict[str, str]:
    """The variables that put the environment of ``interpreter`` in force; none for a Python that
    belongs to no environment. Those that only this node can tell have a placeholder for a value.
    """
    folder = os.path.dirname(interpreter)
    prefix = os.path.dirname(folder)
    if os.path.isfile(os.path.join(prefix, "pyvenv.cfg")):
        return {"VIRTUAL_ENV": prefix, "PATH": _path(folder)}
    if not os.path.isdir(os.path.join(prefix, "conda-meta")):
        return {}
    own = _of_conda(prefix, folder)
    return {**own, **{name: f"{{environment:{name}}}" for name in activated_variables(prefix)}}


def activated_variables(prefix: str) -> dict[str, str]:
    """What the scripts and the owner of the conda environment at ``prefix`` set.

    Raises :class:`AgentFault` where a script ends the shell, or takes too long.
    """
    login = login_environment()
    own = _of_conda(prefix, os.path.join(prefix, "bin"))
    before = {**login, **own, **_configured(prefix)}
    after = _sourced(prefix, before) if _has_scripts(prefix) else before
    changed = {k: v for k, v in after.items() if v not in (login.get(k), own.get(k))}
    names = sorted(name for name in changed if NAME.match(name) and name not in OF_SHELLS)
    return {name: changed[name] for name in names[:MAX_VARIABLES]}


def fill_variables(env: Mapping[str, str]) -> dict[str, str]:
    """``env`` with the values in place of the placeholders; ``CONDA_PREFIX`` in it says of which
    environment. Raises :class:`AgentFault`.
    """
    if not any(map(ACTIVATED.search, env.values())):
        return dict(env)
    prefix = env.get("CONDA_PREFIX", "")
    found = activated_variables(prefix)

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in found:
            raise AgentFault(ENVIRONMENT, f"activating {prefix} does not set {name} any more")
        return found[name]

    return {name: ACTIVATED.sub(value, text) for name, text in env.items()}


def _path(folder: str) -> str:
    """The login's PATH with the environment's programs first."""
    login = login_environment().get("PATH", os.defpath)
    return os.pathsep.join([folder, *(p for p in login.split(os.pathsep) if p != folder)])


def _of_conda(prefix: str, folder: str) -> dict[str, str]:
    """What conda itself sets. The base environment is called so; others by their folder, if it is
    among conda's.
    """
    parent, name = os.path.split(prefix)
    if os.path.isdir(os.path.join(prefix, "condabin")):
        name = "base"
    elif os.path.basename(parent) != "envs":
        name = prefix
    return {
        "CONDA_PREFIX": prefix,
        "CONDA_DEFAULT_ENV": name,
        "CONDA_SHLVL": "1",
        "PATH": _path(folder),
    }


def _configured(prefix: str) -> dict[str, str]:
    """Variables of ``conda env config vars set``; an unreadable file has none."""
    try:
        with open(os.path.join(prefix, "conda-meta", "state"), "rb") as file:
            told: Any = json.loads(file.read(MAX_STATE_BYTES))
        pairs = told["env_vars"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {name: value for name, value in pairs if isinstance(value, str) and NAME.match(name)}


def _has_scripts(prefix: str) -> bool:
    try:
        names = os.listdir(os.path.join(prefix, "etc", "conda", "activate.d"))
    except OSError:
        return False
    return any(name.endswith(".sh") for name in names)


def _sourced(prefix: str, before: dict[str, str]) -> dict[str, str]:
    """The environment after the scripts, as a shell has it."""
    shell = shutil.which("bash", path=before["PATH"]) or "/bin/sh"
    quiet = ["--noprofile", "--norc"] if shell.endswith("bash") else []
    try:
        done = subprocess.run(
            [shell, *quiet, "-c", SOURCE, "activate", prefix, sys.executable, TELL],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=before,
            check=False,
            timeout=SCRIPTS_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AgentFault(ENVIRONMENT, f"activating {prefix}: {no_answer_reason(error)}") from error
    text = done.stdout.decode(errors="replace").rpartition(MARK)[2]
    try:
        after: dict[str, str] = json.loads(text)
    except ValueError as error:
        said = done.stderr.decode(errors="replace").strip()[-MAX_ERROR_CHARACTERS:]
        why = f"etc/conda/activate.d ended the shell with {done.returncode}: {said}"
        raise AgentFault(ENVIRONMENT, f"activating {prefix}: {why}") from error
    return after
