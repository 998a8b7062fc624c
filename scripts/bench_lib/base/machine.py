"""What a figure depends on: the machine, the date, the versions."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

from .bed import ROOT, cores, run_tool
from .errors import BenchError

VERSION = re.compile(r"\d+(?:\.\d+)+\S*")
TOOLS = {
    "ssh": ["ssh", "-V"],
    "clush": ["clush", "--version"],
    "pdsh": ["pdsh", "-V"],
    "rsync": ["rsync", "--version"],
    "git": ["git", "--version"],
}
MODULES = ("asyncssh", "torch")
MODULE_VERSION = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"


def describe(python: str, deepspeed_python: str | None) -> dict[str, str]:
    """Facts in the order in which they are printed; `absent` for what is not installed."""
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "code": _tool(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--tags"]),
        "processor": f"{_processor()}, {cores()} cores",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": _version([python, "--version"]),
    }
    facts |= {name: _version(argv) for name, argv in TOOLS.items()}
    facts |= {name: _version([python, "-c", MODULE_VERSION, name]) for name in MODULES}
    if deepspeed_python:
        facts["deepspeed"] = _version([deepspeed_python, "-c", MODULE_VERSION, "deepspeed"])
    return facts


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1] if named else platform.machine()


def _tool(argv: list[str]) -> str:
    try:
        return run_tool(argv).strip()
    except BenchError:
        return "absent"


def _version(argv: list[str]) -> str:
    text = _tool(argv)
    found = VERSION.search(text)
    return found[0].rstrip(",") if found else text
