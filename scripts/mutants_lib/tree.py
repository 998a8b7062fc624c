"""Copies of the checkout as it is now, uncommitted changes included."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GIT_S = 60.0


def copy_checkout(target: Path) -> None:
    """Every file that git knows or would take, with its times, so that byte code stays valid."""
    known = ("--cached", "--others", "--exclude-standard")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--deduplicate", *known],
        stdout=subprocess.PIPE,
        timeout=GIT_S,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():  # not removed since it was added
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name, follow_symlinks=False)
