"""Whether LoadGen is here, before anything is contacted."""

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


def require_loadgen(say: Callable[[str], object]) -> None:
    """Raises :class:`UsageError` with the command that brings it.

    Into the environment of a checkout, which belongs to this program, it is installed instead, as
    ``say`` is told.
    """
    if importlib.util.find_spec(MODULE) is not None:
        return
    why = "it asks for the samples of this run"
    if Path(sys.prefix, "ready").exists():  # written by scripts/bootstrap.py, and by nothing else
        say(f"installing LoadGen ({REQUIREMENT}) into {sys.prefix}")
        why = _install()
    if why:
        raise UsageError(
            "LoadGen is not installed beside orchestrate",
            id="run.loadgen",
            why=why,
            remedy=f"{sys.executable} -m pip install {REQUIREMENT} (wheels: Linux on x86-64; "
            "elsewhere pip builds it), or --set preset=tiny, which runs without LoadGen",
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
    if done.returncode == 0 and importlib.util.find_spec(MODULE) is not None:
        return ""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return f"pip: {lines[-1][:200]}" if lines else f"pip ended with {done.returncode}"
