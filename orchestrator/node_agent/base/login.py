"""The environment that a login gives, as far as programs on this node get it."""

from __future__ import annotations

import os

# What ranks inherit from the login: where things are and how text looks, not what tunes a program.
INHERITED = frozenset(
    "HOME PATH USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR LD_LIBRARY_PATH CUDA_HOME CUDA_PATH "
    "XDG_CACHE_HOME HF_HOME http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY "
    "SLURM_CONF".split()
)
INHERITED_PREFIXES = ("LC_", "NVIDIA_", "SSL_CERT_")


def login_environment() -> dict[str, str]:
    """The part of the agent's own environment that programs on this node get."""
    own = os.environ.items()
    return {k: v for k, v in own if k in INHERITED or k.startswith(INHERITED_PREFIXES)}
