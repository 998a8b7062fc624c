"""The real kubectl, which Debian has only in versions that are too old."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess

import pytest

from tests.time_limits import scaled

# The first that executes commands over WebSockets without being asked to.
OLDEST = (1, 31)
# The reason that continuous integration accepts, too: tests/conftest.py.
MISSING = "not in Debian: kubectl 1.31 or newer"


def require_kubectl() -> None:
    """Skip the test where there is none that is new enough."""
    if _version() < OLDEST:
        pytest.skip(MISSING)


@functools.cache
def _version() -> tuple[int, int]:
    program = shutil.which("kubectl")
    if program is None:
        return (0, 0)
    argv = [program, "version", "--client", "--output=json"]
    said = subprocess.run(argv, capture_output=True, timeout=scaled(30), check=True).stdout
    version = re.match(r"v(\d+)\.(\d+)", json.loads(said)["clientVersion"]["gitVersion"])
    assert version, said
    return int(version[1]), int(version[2])
