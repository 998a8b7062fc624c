"""Whether LoadGen is here, before anything is contacted. Only a run installs it."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator.core.base.errors import UsageError

MODULE = "mlperf_loadgen"
REQUIREMENT = "mlcommons-loadgen==6.0.17"
INSTALL_S = 180.0
WHY = "it asks for the samples of this run"


def require_loadgen(say: Callable[[str], object]) -> None:
    """Raises :class:`UsageError` with the command that brings it.

    Into the environment of a checkout, which belongs to this program, it is installed instead, as
    ``say`` is told.
    """
    refuse_missing()
    if _is_installed():
        return
    say(f"installing LoadGen ({REQUIREMENT}) into {sys.prefix}")
    if why := _install():
        raise _missing(why)


def refuse_missing() -> None:
    """Raises :class:`UsageError` where LoadGen is missing and a run would not install it."""
    if not _is_installed() and not _is_checkout():
        raise _missing(WHY)


def missing_text() -> str:
    """For a plan: what a run would do first, or the command that is missing; empty if LoadGen is
    here.
    """
    if _is_installed():
        return ""
    if _is_checkout():
        return f"not installed: the run would install {REQUIREMENT} into {sys.prefix} first"
    return f"not installed, the run would be refused: {_command()}"


def _is_installed() -> bool:
    return importlib.util.find_spec(MODULE) is not None


def _is_checkout() -> bool:
    """Whether the environment belongs to this program."""
    # Written by scripts/bootstrap.py, and by nothing else.
    return Path(sys.prefix, "ready").exists()


def _command() -> str:
    return f"{sys.executable} -m pip install {REQUIREMENT}"


def _missing(why: str) -> UsageError:
    return UsageError(
        "LoadGen is not installed beside orchestrate",
        id="run.loadgen",
        why=why,
        remedy=f"{_command()} (wheels: Linux on x86-64; elsewhere pip builds it), "
        "or --set preset=tiny, which runs without LoadGen",
    )


def _install() -> str:
    """Why it could not be installed; "" = it is here now."""
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--only-binary=:all:"]
    try:
        done = subprocess.run(
            [*argv, REQUIREMENT],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=INSTALL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"pip: {type(error).__name__}"
    importlib.invalidate_caches()
    if done.returncode == 0 and _is_installed():
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return f"pip: {lines[-1][:200]}" if lines else f"pip ended with {done.returncode}"
