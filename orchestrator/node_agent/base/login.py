"""The environment that a login gives, as far as programs on this node get it."""

from __future__ import annotations

import os
import pwd
import re

from orchestrator.node_agent.base.agent_errors import ABSENT, AgentFault
from orchestrator.node_agent.base.schedulers import VARIABLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Match

# What ranks inherit from the login: where things are and how text looks, not what tunes a program.
INHERITED = frozenset(
    "HOME PATH USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR LD_LIBRARY_PATH CUDA_HOME CUDA_PATH "
    "XDG_CACHE_HOME HF_HOME http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY".split()
)
INHERITED_PREFIXES = ("LC_", "NVIDIA_", "SSL_CERT_")

# Where engines of containers look for their settings, and for what they keep.
ENGINE_SETTINGS = frozenset(
    "XDG_RUNTIME_DIR XDG_DATA_HOME XDG_CONFIG_HOME DBUS_SESSION_BUS_ADDRESS CONTAINERS_CONF "
    "CONTAINERS_STORAGE_CONF CONTAINERS_REGISTRIES_CONF REGISTRY_AUTH_FILE DOCKER_HOST "
    "DOCKER_CONTEXT DOCKER_CONFIG".split()
)
ENGINE_PREFIXES = ("APPTAINER_", "ENROOT_")


def user_name() -> str:
    """The user's, or the number of one that has no name here, as in many containers."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def expand_path(path: str) -> str:
    """``path`` with ``~``, ``$NAME`` and ``${NAME}`` replaced by what they are on this node.

    Raises :class:`AgentFault` for a variable that is not set or empty.
    """
    user = user_name()
    known = {"USER": user, "LOGNAME": user, "HOME": os.path.expanduser("~"), **os.environ}

    def value(found: Match[str]) -> str:
        name = found.group(1) or found.group(2)
        if not known.get(name):
            raise AgentFault(ABSENT, "%s: $%s is not set where commands run" % (path, name))
        return known[name]

    return os.path.expanduser(re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, path))


def login_environment() -> dict[str, str]:
    """The part of the agent's own environment that programs on this node get."""
    own = os.environ.items()
    return {k: v for k, v in own if k in INHERITED | VARIABLES or k.startswith(INHERITED_PREFIXES)}


def engine_environment() -> dict[str, str]:
    """The same, and what engines of containers are told by their own variables."""
    own = os.environ.items()
    settings = {k: v for k, v in own if k in ENGINE_SETTINGS or k.startswith(ENGINE_PREFIXES)}
    return {**settings, **login_environment()}
