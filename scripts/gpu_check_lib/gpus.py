"""Whether this machine has GPUs, and how many."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def has_gpus() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))


def gpu_count() -> int:
    """By the driver's own listing; 0 without one."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return len(done.stdout.splitlines())
