"""Which GPUs this process may give to engines."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any

VARIABLE = "CUDA_VISIBLE_DEVICES"
LIST_S = 20.0
MAX_GPUS = 64


def gpus_here(
    facts: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """GPUs as ``CUDA_VISIBLE_DEVICES`` names them: its own value, else those that were probed.

    ``facts`` are what ``kit.facts()`` returns; without them the driver's ``nvidia-smi`` is asked.
    """
    chosen = environment.get(VARIABLE)
    if chosen is not None:
        return _chosen(chosen)
    if facts:
        found = facts.get("gpus")
        gpus = found if isinstance(found, list) else []
        return tuple(str(gpu["index"]) for gpu in gpus if isinstance(gpu, dict) and "index" in gpu)
    return _listed_by_driver()


def _chosen(text: str) -> tuple[str, ...]:
    """As CUDA reads it: what follows an item that names no GPU does not count."""
    gpus: list[str] = []
    for item in map(str.strip, text.split(",")):
        if item in {"", "-1"}:
            break
        gpus.append(item)
    return tuple(gpus)


def _listed_by_driver() -> tuple[str, ...]:
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=LIST_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    lines = [line.strip() for line in done.stdout.splitlines()[:MAX_GPUS]]
    return tuple(line for line in lines if line.isdigit())
