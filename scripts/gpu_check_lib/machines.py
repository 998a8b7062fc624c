#!/usr/bin/env python3
"""This machine as the product sees it: is what NVML's structures say what nvidia-smi says?

    python3 scripts/gpu_check_lib/machines.py machines.json

Probe, doctor (quick, then two looks ten seconds apart), and each GPU's firmware, temperatures and
margin beside ``nvidia-smi -q``. About half a minute; a part that fails stops no other. Without GPUs
the same commands run, and nothing is compared.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMAND_S = 120
# What nvidia-smi -q calls it -> the probe's field; the lines of a GPU that hold it once.
LINES = {
    "VBIOS Version": "vbios",
    "Image Version": "inforom",
    "GSP Firmware Version": "gsp",
    "GPU Current Temp": "temperature_c",
    "GPU T.Limit Temp": "margin_c",
    "Memory Current Temp": "memory_temperature_c",
    "GPU Memory Max Operating Temp": "memory_temperature_max_c",
}
# Temperatures move between two looks.
MOVES_C = 4


def main() -> None:
    summary = Path(sys.argv[1]).resolve()
    out = summary.with_suffix("")
    out.mkdir(parents=True, exist_ok=True)
    said: dict[str, list[str]] = {}
    inventory = out / "machine.yaml"
    inventory.write_text("name: machine\ndefaults: {transport: local}\nnodes: [here]\n")
    words = ["--cluster", str(inventory), "--json"]
    for name, work in (
        ("probe", lambda: ask(out, "probe", "probe", "all", *words)),
        ("doctor", lambda: ask(out, "doctor", "doctor", *words)),
        ("doctor again", lambda: ask(out, "doctor-again", "doctor", *words, "--level=2min",
                                     "--watch=10")),
        ("fields", lambda: compare(out)),
    ):  # fmt: skip
        said[name] = attempt(name, work)
        summary.write_text(json.dumps(said, indent=1))


def attempt(name: str, work: Callable[[], list[str]]) -> list[str]:
    began = time.monotonic()
    try:
        lines = work()
    except Exception as error:  # noqa: BLE001 - one part must not cost the others
        lines = [f"{type(error).__name__}: {error}"]
    print(f"== {name}: {time.monotonic() - began:.1f} s", *lines, sep="\n   ", flush=True)
    return lines


def ask(out: Path, name: str, *words: str) -> list[str]:
    """A command's records in a file, and of a doctor's what is not well."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ORCHESTRATE_HOME": str(out / "home")}
    argv = [sys.executable, "-P", "-m", "orchestrator", *words]
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    (out / f"{name}.jsonl").write_text(done.stdout)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    bad = [
        f"{one['state']} {one['check']} {one['name']}: {one['what']}"
        for one in records
        if one.get("type") == "check" and one["state"] not in {"ok", "none"}
    ]
    return [f"exit {done.returncode}", *bad, *done.stderr.strip().splitlines()[-3:]]


def compare(out: Path) -> list[str]:
    """Field by field, GPU by GPU."""
    (record, *_) = map(json.loads, (out / "probe.jsonl").read_text().splitlines())
    facts = record["facts"]
    text = subprocess.run(
        ["nvidia-smi", "-q"], capture_output=True, text=True, timeout=COMMAND_S, check=True
    ).stdout
    (out / "nvidia-smi-q.txt").write_text(text)
    parts = re.split(r"^GPU [0-9A-F:.]+$", text, flags=re.MULTILINE)[1:]
    found = [f"{len(parts)} GPUs by nvidia-smi, {facts['gpus_on_bus']} on the bus"]
    for gpu, part in zip(facts["gpus"], parts, strict=True):
        found += [f"GPU {gpu['index']} {line}" for line in differences(gpu, part)]
    found.append(f"{len(found) - 1} differences")
    return found


def differences(gpu: Mapping[str, Any], part: str) -> list[str]:
    """What the two do not agree on; what nvidia-smi does not have must be unknown to us, too."""
    found = []
    for label, field in LINES.items():
        match = re.search(rf"^\s+{re.escape(label)}\s+: (.*)$", part, re.MULTILINE)
        said = match[1].strip() if match else "N/A"
        mine = gpu[field]
        if isinstance(mine, int) and (number := re.match(r"-?\d+", said)):
            if abs(mine - int(number[0])) > MOVES_C:
                found.append(f"{field}: {mine}, nvidia-smi {said}")
        elif (mine or "N/A") != said:
            found.append(f"{field}: {mine}, nvidia-smi {said}")
    return found


if __name__ == "__main__":
    main()
