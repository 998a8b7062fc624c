"""One short command on all hosts: ours, clush and pdsh over the same ssh_config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from bench_lib.base.bed import Bed, need
from bench_lib.base.measure import Command, Expected, measure
from bench_lib.base.rounds import Case, Contender, Scenario
from bench_lib.base.stats import Quantity, Sample, Target

COUNTS = (2, 8, 32)
LIMIT_S = 120.0
FAN_OUT = "64"
NOTE = (
    f"A new connection to every host. Fan-out of clush and pdsh: {FAN_OUT}, no ControlMaster; the "
    "same ssh_config, key and known_hosts for all. "
    "The hosts' sshd share this machine's cores with the client, so wall time holds the servers' "
    "part of the handshakes, which is the same for all; CPU time is the client's only."
)
OURS, CLUSH, PDSH = "orchestrate exec", "clush", "pdsh -R ssh"
KEPT_NOTE = (
    "The second command: ours and clush with ControlPersist find the connections of the warm-up; "
    "clush and pdsh without it make new ones, as most people's do. Ours is begun by the warm "
    "process that the first one left. Client CPU is the command's, with that of the warm process "
    "for it, without our broker's and without that of the `ssh` in the background."
)
KEPT_OURS, KEPT_CLUSH = "orchestrate exec, kept", "clush, ControlPersist"
KEPT_OPENSSH = "orchestrate exec, kept, transport: openssh"
KEPT_S = 600


def fan_out(bed: Bed) -> Scenario:
    """`hostname` on 2, 8 and 32 hosts, with a new connection to each."""
    need("clush", "pdsh", "ssh")
    most = f"{COUNTS[-1]} hosts"
    return Scenario(
        name="fan-out",
        title="Fan-out: `hostname` on every host",
        ours=OURS,
        cases=[_case(bed, count) for count in COUNTS],
        targets=[
            Target(case=most, quantity=Quantity.WALL, against=CLUSH, limit=0.7),
            Target(case=most, quantity=Quantity.CPU, against=CLUSH, limit=0.25),
        ],
        note=NOTE,
        profile=_ours(bed, COUNTS[-1]),
    )


def kept_fan_out(bed: Bed) -> Scenario:
    """The same over connections that stayed."""
    return Scenario(
        name="kept-fan-out",
        title="Fan-out over kept connections: the second `hostname` on every host",
        ours=KEPT_OURS,
        cases=[_kept_case(bed, count) for count in COUNTS],
        targets=[
            Target(case="2 hosts", quantity=Quantity.WALL, against=PDSH, limit=0.5),
            Target(case="32 hosts", quantity=Quantity.WALL, against=CLUSH, limit=0.15),
            Target(case="32 hosts", quantity=Quantity.WALL, against=KEPT_CLUSH, limit=0.6),
        ],
        note=KEPT_NOTE,
    )


def _kept_case(bed: Bed, count: int) -> Case:
    stays = f"-o ControlMaster=auto -o ControlPath={bed.folder}/%%C -o ControlPersist={KEPT_S}"
    commands = {
        KEPT_OURS: _ours(bed, count, KEPT_S),
        KEPT_OPENSSH: _ours(bed, count, KEPT_S, "openssh"),
        KEPT_CLUSH: _clush(bed, count, stays),
        CLUSH: _clush(bed, count),
        PDSH: _pdsh(bed, count),
    }
    return _case_of(bed, count, commands)


def _case(bed: Bed, count: int) -> Case:
    commands = {OURS: _ours(bed, count), CLUSH: _clush(bed, count), PDSH: _pdsh(bed, count)}
    return _case_of(bed, count, commands)


def _case_of(bed: Bed, count: int, commands: Mapping[str, Command]) -> Case:
    names = b"|".join(re.escape(name.encode()) for name in bed.names(count))
    # Every host must have answered with its own name, whatever a tool puts in front of it.
    expected = Expected(pattern=re.compile(rb"\b(%b)\s*$" % names, re.MULTILINE), count=count)
    return Case(
        name=f"{count} hosts",
        contenders=[
            Contender(name=name, run=partial(_run, command, expected))
            for name, command in commands.items()
        ],
    )


def _run(command: Command, expected: Expected) -> Sample:
    done = measure([command], timeout_s=LIMIT_S, expected=expected)
    return Sample(wall_s=done.wall_s, cpu_s=done.cpu_s)


def _ours(bed: Bed, count: int, keep_s: int = 0, transport: str = "asyncssh") -> Command:
    inventory = str(bed.inventory(count, transport))
    return bed.orchestrate("exec", "--cluster", inventory, "--", "hostname", keep_s=keep_s)


def _clush(bed: Bed, count: int, more: str = "") -> Command:
    options = f"-F {bed.hosts.ssh_config} {more}".strip()
    return Command(
        argv=["clush", "-w", bed.nodeset(count), "-f", FAN_OUT, "-o", options, "hostname"]
    )


def _pdsh(bed: Bed, count: int) -> Command:
    return Command(
        argv=["pdsh", "-R", "ssh", "-w", bed.nodeset(count), "-f", FAN_OUT, "hostname"],
        env={"PDSH_SSH_ARGS_APPEND": f"-F {bed.hosts.ssh_config}"},
    )
