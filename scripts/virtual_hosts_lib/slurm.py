"""A real Slurm on the hosts: munged and slurmd on each, slurmctld on the first. No control groups.

Everything that the daemons write lies in /run of their host; the configuration is where Debian's
programs look for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from .processes import VirtualHostsError, run_command
from .state import write_text

TOOLS = {
    "/usr/sbin/munged": "munge",
    "/usr/sbin/slurmctld": "slurm-wlm",
    "/usr/sbin/slurmd": "slurm-wlm",
    "/usr/bin/srun": "slurm-wlm",
}
FOLDERS = ("/run/munge", "/run/slurm/spool", "/run/slurm/state")
MUNGED = (
    "/usr/sbin/munged",
    "--log-file=/run/munge/munged.log",
    "--pid-file=/run/munge/munged.pid",
    "--seed-file=/run/munge/munged.seed",
)
KEY_BYTES = 128
START_SECONDS = 30.0
POLL_SECONDS = 0.1
# Detection of the version refuses machines where both are mounted; it is not used for anything.
CGROUP = "CgroupPlugin=cgroup/v1\n"


def configuration(names: Sequence[str], cpus: int) -> str:
    """slurm.conf: one partition of all hosts. Nodes come back by themselves after a reboot."""
    return f"""ClusterName=virtual
SlurmctldHost={names[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=15
InactiveLimit=0
SlurmdParameters=config_overrides
StateSaveLocation=/run/slurm/state
SlurmdSpoolDir=/run/slurm/spool
SlurmctldPidFile=/run/slurm/slurmctld.pid
SlurmctldLogFile=/run/slurm/slurmctld.log
SlurmdPidFile=/run/slurm/slurmd.pid
SlurmdLogFile=/run/slurm/slurmd.log
NodeName={",".join(names)} CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def write_files(etc: Sequence[Path], names: Sequence[str]) -> None:
    """The configuration and one key for all, into each host's /etc."""
    text = configuration(names, len(os.sched_getaffinity(0)))
    key = os.urandom(KEY_BYTES)
    for top in etc:
        (top / "slurm").mkdir()
        write_text(top / "slurm/slurm.conf", text)
        write_text(top / "slurm/cgroup.conf", CGROUP)
        (top / "munge").mkdir(mode=0o700)
        (top / "munge/munge.key").write_bytes(key)
        (top / "munge/munge.key").chmod(0o400)


def start(name: str, enter: Sequence[str], *, controller: bool) -> None:
    """Start the daemons of one host; ``enter`` is an argv that runs what follows it inside."""
    run_command([*enter, "mkdir", "-p", *FOLDERS])
    run_command([*enter, *MUNGED])
    if controller:
        run_command([*enter, "/usr/sbin/slurmctld"])
    run_command([*enter, "/usr/sbin/slurmd", "-N", name])


def wait(enter: Sequence[str], count: int) -> None:
    """Until the controller has heard of ``count`` hosts."""
    deadline = time.monotonic() + START_SECONDS
    asked = [*enter, "sinfo", "--noheader", "--Node", "--states=idle,alloc,mix", "--format=%N"]
    while True:
        try:
            said = run_command(asked)
        except VirtualHostsError as error:  # it does not answer yet
            said = str(error)
        if len(said.split()) == count:
            return
        if time.monotonic() >= deadline:
            raise VirtualHostsError(f"Slurm did not start in {START_SECONDS:g} s: {said[:300]}")
        time.sleep(POLL_SECONDS)
