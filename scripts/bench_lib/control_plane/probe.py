"""`orchestrate probe` against a bare `true`, on all hosts: what it costs to know them."""

from __future__ import annotations

import re
from functools import partial

from bench_lib.base.bed import Bed, need
from bench_lib.base.measure import Command, Expected, measure
from bench_lib.base.rounds import Case, Contender, Scenario
from bench_lib.base.stats import Quantity, Sample, Target

from .fan_out import FAN_OUT, LIMIT_S

COUNT = 32
PROBE, TRUE, CLUSH = "orchestrate probe", "orchestrate exec true", "clush true"
NOTE = (
    "A new connection to every host, and one answer from each: addresses, adapters, limits, disks, "
    "kernel, clock. The agent lies on the hosts already, from the round that warms up. The hosts "
    "share this machine's cores, so wall time holds 32 starts of Python that real nodes pay side "
    "by side."
)


def probe(bed: Bed) -> Scenario:
    """32 hosts, with a new connection to each."""
    most = f"{COUNT} hosts"
    return Scenario(
        name="probe",
        title="Probe: what every host has",
        ours=PROBE,
        cases=[Case(name=most, contenders=_contenders(bed))],
        targets=[Target(case=most, quantity=Quantity.WALL, against=TRUE, limit=1.5)],
        note=NOTE,
        profile=_probe(bed),
    )


def _contenders(bed: Bed) -> list[Contender]:
    need("clush")
    cluster = str(bed.inventory(COUNT))
    true = bed.orchestrate("exec", "--cluster", cluster, "--", "true")
    options = f"-F {bed.hosts.ssh_config}"
    argv = ["clush", "-w", bed.nodeset(COUNT), "-f", FAN_OUT, "-o", options, "true"]
    # A line of facts for each host, and none that says it could not be asked.
    facts = Expected(pattern=re.compile(rb'"node": "(\w+)", .*"facts": \{'), count=COUNT)
    return [
        Contender(name=PROBE, run=partial(_run, _probe(bed), facts)),
        Contender(name=TRUE, run=partial(_run, true, None)),
        Contender(name=CLUSH, run=partial(_run, Command(argv=argv), None)),
    ]


def _probe(bed: Bed) -> Command:
    return bed.orchestrate("probe", "--json", "--cluster", str(bed.inventory(COUNT)))


def _run(command: Command, expected: Expected | None) -> Sample:
    done = measure([command], timeout_s=LIMIT_S, expected=expected)
    return Sample(wall_s=done.wall_s, cpu_s=done.cpu_s)
