"""Programs that ask the NVIDIA driver: nvidia-smi and our own reader of its library.

Each is a process of its own, because a wedged driver does not let go even of a killed process.
"""

from __future__ import annotations

import os

from orchestrator.node_agent.base.agent_errors import no_answer_reason
from orchestrator.node_agent.base.sysfs import parse_int

TIMEOUT_S = 25.0
MAX_OUTPUT_BYTES = 1024 * 1024
MIB = 1024 * 1024
COMPUTE_USERS = "--query-compute-apps=gpu_uuid,pid"
FALLBACK_PATHS = ("/usr/bin/nvidia-smi", "/usr/local/nvidia/bin/nvidia-smi")
NVML = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nvml.py")


def find_program() -> str | None:
    """Where nvidia-smi is, if anywhere."""
    return find_on_path("nvidia-smi") or next(filter(os.path.exists, FALLBACK_PATHS), None)


def find_on_path(name: str) -> str | None:
    """The path of a program on the PATH."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    paths = (os.path.join(folder, name) for folder in folders if folder)
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def query_smi(program: str, what: str, notes: list[str], timeout_s: float = TIMEOUT_S) -> str:
    """nvidia-smi's answer as CSV; "" with a note when there is none."""
    return run_tool([program, what, "--format=csv,noheader,nounits"], notes, timeout_s)


def run_tool(argv: list[str], notes: list[str], timeout_s: float) -> str:
    """What a program of the driver's prints; "" with a note when it fails."""
    import subprocess
    import threading

    name = os.path.basename(argv[0] if argv[-1] != NVML else NVML)
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    except OSError as error:
        notes.append(f"{name}: {error}")
        return ""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        notes.append(f"{name}: {no_answer_reason(error)}")
        process.kill()
        # A wedged driver keeps it beyond KILL: whoever asked must not wait for that.
        threading.Thread(target=process.communicate, daemon=True).start()
        return ""
    text = out[:MAX_OUTPUT_BYTES].decode(errors="replace")
    if process.returncode:
        said = err[:500].decode(errors="replace").strip() or text[:500].strip()
        notes.append(f"{name} ended with {process.returncode}: {said}")
        return ""
    return text


def parse_users(text: str) -> dict[str, set[int]]:
    """GPU uuid -> pids that hold a context on it."""
    users: dict[str, set[int]] = {}
    for line in text.splitlines():
        uuid, _, pid = (part.strip() for part in line.partition(","))
        number = parse_int(pid)
        if number is not None:
            users.setdefault(uuid, set()).add(number)
    return users
