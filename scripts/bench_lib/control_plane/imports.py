"""How long commands take that contact nobody, and what they import."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

from bench_lib.base.bed import Bed, run_tool
from bench_lib.base.measure import Command, measure
from bench_lib.base.rounds import Case, Contender, Scenario
from bench_lib.base.stats import Quantity, Sample, Target

OURS, FLOOR = "orchestrate", "python -c pass"
COMMANDS = ("--help", "exec --help", "cluster list")
LIMIT_S = 30.0
TARGET_S = 0.3
MIN_REPEATS = 20
TOP = 8
LINE = re.compile(r"^import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One line of `python -X importtime`, in microseconds; `whole_us` includes what it imports."""

    module: str
    self_us: int
    whole_us: int
    depth: int


def imports(bed: Bed) -> Scenario:
    """Help and other commands that answer from this machine alone."""
    floor = Command(argv=[bed.python, "-c", "pass"], env=bed.env, cwd=bed.folder)
    return Scenario(
        name="imports",
        title="Start-up: commands that contact nobody",
        ours=OURS,
        cases=[
            Case(
                name=f"orchestrate {words}",
                contenders=[
                    Contender(name=OURS, run=partial(_run, bed.orchestrate(*words.split()))),
                    Contender(name=FLOOR, run=partial(_run, floor)),
                ],
            )
            for words in COMMANDS
        ],
        targets=[
            Target(case=f"orchestrate {words}", quantity=Quantity.WALL, limit=TARGET_S)
            for words in COMMANDS
        ],
        repeats=MIN_REPEATS,
    )


def _run(command: Command) -> Sample:
    done = measure([command], timeout_s=LIMIT_S)
    return Sample(wall_s=done.wall_s, cpu_s=done.cpu_s)


def import_profile(bed: Bed) -> str:
    """The heaviest imports of each command, by what they cost with all that they import."""
    parts = []
    for words in COMMANDS:
        argv = [bed.python, "-X", "importtime", "-m", "orchestrator", *words.split()]
        text = run_tool(["env", f"PYTHONPATH={bed.env['PYTHONPATH']}", *argv], cwd=bed.folder)
        heaviest = sorted(parse_imports(text), key=lambda line: -line.whole_us)[:TOP]
        lines = [f"{i.whole_us / 1000:8.1f} {i.self_us / 1000:8.1f}  {i.module}" for i in heaviest]
        parts.append("\n".join([f"orchestrate {words}: ms whole, ms self", *lines]))
    return "\n\n".join(parts)


def parse_imports(text: str) -> list[Import]:
    """The lines of `python -X importtime` among others."""
    return [
        Import(module=m[4], self_us=int(m[1]), whole_us=int(m[2]), depth=len(m[3]) // 2)
        for m in LINE.finditer(text)
    ]
