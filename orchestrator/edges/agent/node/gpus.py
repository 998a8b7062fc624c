"""GPUs as nvidia-smi lists them. No nvidia-smi, no GPUs; one that fails is told in a note."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TIMEOUT_S = 25.0
MAX_OUTPUT_BYTES = 1024 * 1024
MIB = 1024 * 1024
GPU_FIELDS = ("index", "name", "uuid", "memory.total", "memory.used", "driver_version")
COMPUTE_USERS = "--query-compute-apps=gpu_uuid,pid"
FALLBACK_PATHS = ("/usr/bin/nvidia-smi", "/usr/local/nvidia/bin/nvidia-smi")


def find_gpus(notes: list[str]) -> dict[str, Any]:
    """``{"gpus": [...], "driver": text}``."""
    program = find_program()
    if program is None:
        return {"gpus": [], "driver": ""}
    listed = query(program, "--query-gpu=" + ",".join(GPU_FIELDS), notes)
    used = query(program, COMPUTE_USERS, notes) if listed else ""
    gpus, driver = parse_gpus(listed)
    users = parse_users(used)
    for gpu in gpus:
        gpu["users"] = sorted(users.get(gpu["uuid"], ()))
    return {"gpus": gpus, "driver": driver}


def find_program() -> str | None:
    """Where nvidia-smi is, if anywhere."""
    return shutil.which("nvidia-smi") or next(filter(os.path.exists, FALLBACK_PATHS), None)


def query(program: str, what: str, notes: list[str], timeout_s: float = TIMEOUT_S) -> str:
    """The answer as CSV; "" with a note when there is none."""
    argv = [program, what, "--format=csv,noheader,nounits"]
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    except OSError as error:
        notes.append(f"nvidia-smi: {error}")
        return ""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        notes.append(f"nvidia-smi: {error}")
        process.kill()
        # A wedged driver keeps it beyond KILL: whoever asked must not wait for that.
        threading.Thread(target=process.communicate, daemon=True).start()
        return ""
    text = out[:MAX_OUTPUT_BYTES].decode(errors="replace")
    if process.returncode:
        said = err[:500].decode(errors="replace").strip() or text[:500].strip()
        notes.append(f"nvidia-smi ended with {process.returncode}: {said}")
        return ""
    return text


def parse_gpus(text: str) -> tuple[list[dict[str, Any]], str]:
    """(GPUs, driver version) from CSV without header and units; memory arrives in MiB.

    A line that does not start with an index, such as a warning, is left out. ``[N/A]`` counts as 0.
    """
    gpus: list[dict[str, Any]] = []
    driver = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(GPU_FIELDS) or not cells[0].isdigit():
            continue
        gpus.append(
            {
                "index": int(cells[0]),
                "name": cells[1],
                "uuid": cells[2],
                "memory_bytes": _number(cells[3]) * MIB,
                "memory_used_bytes": _number(cells[4]) * MIB,
                "users": [],
            }
        )
        driver = cells[5]
    return gpus, driver


def parse_users(text: str) -> dict[str, set[int]]:
    """GPU uuid -> pids that hold a context on it."""
    users: dict[str, set[int]] = {}
    for line in text.splitlines():
        uuid, _, pid = (part.strip() for part in line.partition(","))
        if pid.isdigit():
            users.setdefault(uuid, set()).add(int(pid))
    return users


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
