"""Where our client spends its time when a target is missed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from bench_lib.base.bed import Bed
from bench_lib.base.errors import BenchError
from bench_lib.base.measure import Command, measure

LIMIT_S = 300.0
LINES = 15
# `pstats` as a program reads its commands from standard input.
SCRIPT = f"sort tottime\nstats {LINES}\n"
NOISE = re.compile(r"statistics browser|^Goodbye")
PROMPT = re.compile(r"^.*% ")


def profile(bed: Bed, command: Command, kept: Path) -> str:
    """Run one of our commands under cProfile; `kept` holds the profile, the text its top lines."""
    module = command.argv.index("-m")
    argv = [bed.python, "-m", "cProfile", "-o", str(kept), *command.argv[module:]]
    measure([Command(argv=argv, env=command.env, cwd=command.cwd)], timeout_s=LIMIT_S)
    done = subprocess.run(
        [bed.python, "-m", "pstats", str(kept)],
        input=SCRIPT, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BenchError(f"the profile {kept} cannot be read: {done.stderr[-500:]}")
    lines = [PROMPT.sub("", line).rstrip() for line in done.stdout.splitlines()]
    shown = [line for line in lines if line and not NOISE.search(line)]
    return "\n".join([f"Profile of our client, with cProfile's own cost; {kept.name}", *shown])
