"""``scripts/fuzz``: each target for a while, and what was found.

    scripts/fuzz --list
    scripts/fuzz --seconds 600 names ignore-rules
    scripts/fuzz --replay FILE names

Guided by coverage where atheris can be imported, else by hypothesis; in an environment of its own:

    python3 -m venv /tmp/fuzz
    /tmp/fuzz/bin/pip install -r requirements/runtime.lock hypothesis atheris
    /tmp/fuzz/bin/python scripts/fuzz --seconds 600 --grown ~/fuzz-corpus

What reaches code that nothing reached before is kept in the folder ``--grown``, from which the next
run goes on. An input is a fault if the reader raises what it does not announce,
or takes longer than two seconds or more than 1 GiB for it; it is kept in the folder ``--faults``.
Exit code 1 if there was one.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fuzz_lib.driving import GUIDED, UNGUIDED
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
FOLDERS = (ROOT, ROOT / "scripts", ROOT / "workloads")
# Beyond its time: to end, and to write down what was found.
GRACE_S = 600.0
_INPUTS = re.compile(r"^(?:inputs=|Done )(\d+)", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all of them")
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument("--seconds", type=float, default=120.0, help="for each target (120)")
    parser.add_argument("--faults", type=Path, default=Path("faults"), metavar="FOLDER")
    parser.add_argument(
        "--grown", type=Path, metavar="FOLDER", help="keeps what was made up, for the next run"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="read this input, once")
    given = parser.parse_args()
    if unknown := set(given.targets) - TARGETS.keys():
        parser.error(f"no target is called {', '.join(sorted(unknown))}; see --list")
    names = given.targets or list(TARGETS)
    if given.list:
        print("\n".join(names))
        return 0
    if given.replay is not None:
        for name in names:
            TARGETS[name](given.replay.read_bytes())
        return 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        grown = given.grown or Path(scratch)
        faulty = [name for name in names if _drive(name, given.seconds, given.faults, grown)]
    return int(bool(faulty))


def _given() -> list[str]:
    """Where else modules lie, as whoever called this said."""
    return [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]


def _drive(name: str, seconds: float, faults: Path, grown: Path) -> bool:
    """Whether ``target`` has a fault. In a process of its own, which may hang or be killed."""
    folder, kept = faults / name, grown / name
    for each in (folder, kept):
        each.mkdir(parents=True, exist_ok=True)
    guided = importlib.util.find_spec("atheris") is not None
    argv = [sys.executable, str(GUIDED if guided else UNGUIDED), name, str(seconds), str(folder)]
    began = time.monotonic()
    try:
        done = subprocess.run(
            [*argv, str(CORPUS / name), str(kept)],
            capture_output=True,
            timeout=seconds + GRACE_S,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, FOLDERS), *_given()])},
            text=True,
            errors="replace",
        )
        code, said = done.returncode, done.stderr
    except subprocess.TimeoutExpired as error:
        code, said = 1, str(error)
    took = time.monotonic() - began
    print(f"{name:16} {took:6.0f} s  {_summary(said)}  {'fault' if code else 'nothing found'}")
    if code:
        (folder / "report.txt").write_text(said)
        print("\n".join(f"    {line}" for line in said.splitlines()[-40:]))
    return bool(code)


def _summary(said: str) -> str:
    """How many inputs there were, as the driver wrote it."""
    found = _INPUTS.search(said)
    return f"{found.group(1) if found else '?':>10} inputs"
