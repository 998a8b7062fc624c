"""Programs that a site installed on a node, such as those of schedulers and of containers."""

from __future__ import annotations

import os
import subprocess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def add_folders(found: Mapping[str, str], folders: Sequence[str]) -> dict[str, str]:
    """The variables ``found``, with ``folders`` behind those of its PATH."""
    return {**found, "PATH": os.pathsep.join(filter(None, (found.get("PATH", ""), *folders)))}


def run_tool(
    argv: Sequence[str], within_s: float, env: Mapping[str, str]
) -> subprocess.CompletedProcess[bytes]:
    """How the program ended, from ``/`` and without input; ended itself after ``within_s``.

    Raises ``OSError`` and ``subprocess.TimeoutExpired``.
    """
    return subprocess.run(
        argv,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=within_s,
        env=env,
        cwd="/",
        check=False,
    )
