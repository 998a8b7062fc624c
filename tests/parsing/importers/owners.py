"""The tools that own the formats, asked for what they read; a missing one is an error."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_S = 60
HERE = Path(__file__).resolve().parent
_ALLOCATED = re.compile(r"^\t(\S+): flags=\S+ slots=([0-9]+) ", re.MULTILINE)
_PROXY = re.compile(r"\] proxy: (\S+) \(([0-9]+) cores\)")


@dataclass(frozen=True, slots=True)
class AnsibleHost:
    """A host as Ansible sees it. ``argv`` None: it would not start ssh."""

    name: str
    groups: frozenset[str]
    variables: Mapping[str, Any]
    argv: tuple[str, ...] | None


class Ansible:
    """One process of ansible-core that reads many inventories."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
        with (home / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "ansible_program.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=home,
                env={"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": path},
            )
        self._errors = home / "stderr"

    def hosts(self, path: Path) -> list[AnsibleHost]:
        """The hosts of the inventory at ``path``; a new path each time, for Ansible keeps files."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(str(path)).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self._errors.read_text()
        return [
            AnsibleHost(
                host["name"],
                frozenset(host["groups"]) - {"all", "ungrouped"},
                host["variables"],
                None if host["argv"] is None else tuple(host["argv"]),
            )
            for host in json.loads(answer)
        ]

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=LIMIT_S)


@functools.cache
def ssh_settings(argv: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    """What ``ssh -G`` makes of a command line, without any configuration but a named one.

    Nothing where ssh refuses it: -J twice, for one.
    """
    config = () if "-F" in argv else ("-F", "/dev/null")
    done = run(["ssh", "-G", *config, *argv[1:]], may_fail=True)
    settings: dict[str, tuple[str, ...]] = {}
    for line in done.splitlines():
        keyword, _, value = line.partition(" ")
        settings[keyword] = (*settings.get(keyword, ()), value)
    return settings


def slurm_hostnames(lists: Sequence[str], folder: Path) -> list[tuple[str, ...] | None]:
    """What ``scontrol show hostnames`` expands each list to; None where it refuses it."""
    conf = folder / "slurm.conf"
    conf.write_text("ClusterName=any\nSlurmctldHost=localhost\n")
    env = {**os.environ, "SLURM_CONF": str(conf)}
    return [_hostnames(text, env) for text in lists]


def _hostnames(text: str, env: Mapping[str, str]) -> tuple[str, ...] | None:
    # Its exit code says nothing: it ends well over a list that it refuses.
    argv = ["scontrol", "show", "hostnames", text]
    names = run(argv, env=env, errors_too=True, may_fail=True).splitlines()
    refused = any(name.startswith(("Invalid", "scontrol: error")) for name in names)
    return None if refused else tuple(name for name in names if name)


CLUSTER_SHELL = """
import json, sys
from ClusterShell.NodeSet import NodeSet
asked = json.load(sys.stdin)
print(json.dumps([[list(NodeSet(text)), str(NodeSet(text))] for text in asked]))
"""


def cluster_shell(texts: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
    """What ClusterShell's node sets expand each text to, and fold it to."""
    # Debian's package belongs to Debian's Python.
    argv = ["/usr/bin/python3", "-c", CLUSTER_SHELL]
    answers = json.loads(run(argv, stdin=json.dumps(list(texts))))
    return [(tuple(names), folded) for names, folded in answers]


@dataclass(frozen=True, slots=True)
class SlurmNode:
    """A node as slurmctld sees it; ``gpus`` 0 = none."""

    address: str
    gpus: int
    partitions: frozenset[str]


def slurm_nodes(conf: Path) -> dict[str, SlurmNode]:
    """What a real slurmctld makes of a configuration; every address in it is a loopback one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    state = conf.parent / "state"
    state.mkdir()
    own = SLURM_CONF.format(port=port, state=state)
    conf.write_text(own + conf.read_text())
    env = {**os.environ, "SLURM_CONF": str(conf)}
    argv = ["/usr/sbin/slurmctld", "-D", "-i"]
    nothing = subprocess.DEVNULL
    with subprocess.Popen(argv, env=env, stdout=nothing, stderr=nothing) as daemon:
        try:
            _wait_for_slurm(env, state, daemon)
            said = run(["scontrol", "--oneliner", "show", "node"], env=env)
        finally:
            daemon.terminate()
    return dict(_slurm_node(line) for line in said.splitlines() if line.strip())


SLURM_CONF = """\
ClusterName=any
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SlurmdTimeout=0
GresTypes=gpu,shard
SelectType=select/cons_tres
StateSaveLocation={state}
SlurmctldPidFile={state}/pid
SlurmctldLogFile={state}/log
"""


def _wait_for_slurm(env: Mapping[str, str], state: Path, daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while " is UP" not in run(["scontrol", "ping"], env=env, errors_too=True, may_fail=True):
        alive = daemon.poll() is None and time.monotonic() < deadline
        assert alive, (state / "log").read_text()[-2000:]
        time.sleep(0.1)


def _slurm_node(line: str) -> tuple[str, SlurmNode]:
    pairs = dict(word.split("=", 1) for word in line.split() if "=" in word)
    gres = [item.split(":") for item in re.sub(r"\(.*?\)", "", pairs["Gres"]).split(",")]
    counts = [words[-1] for words in gres if words[0] == "gpu"]
    gpus = sum(int(count) if count.isdecimal() else 1 for count in counts)
    partitions = frozenset(pairs.get("Partitions", "").split(",")) - {""}
    return pairs["NodeName"], SlurmNode(pairs["NodeAddr"], gpus, partitions)


def open_mpi_slots(text: str, folder: Path) -> dict[str, int] | None:
    """The slots of each node that Open MPI allocates from a hostfile; None where it refuses it."""
    hostfile = folder / "hostfile"
    hostfile.write_text(text)
    # It would look up every name.
    quiet = ["--mca", "if_base_do_not_resolve", "1"]
    options = [*quiet, "--mca", "ras_base_verbose", "10", "--do-not-launch", "-np", "1", "true"]
    allowed = dict.fromkeys(("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"), "1")
    said = run(
        ["mpirun.openmpi", "--hostfile", str(hostfile), *options],
        env={**os.environ, **allowed},
        errors_too=True,
        may_fail=True,
    )
    found = {name: int(slots) for name, slots in _ALLOCATED.findall(said)}
    return found or None


def mpich_entries(text: str, total: int, folder: Path) -> list[tuple[str, int]]:
    """The entries, in order, that Hydra starts ``total`` processes on."""
    hostfile = folder / "hostfile"
    hostfile.write_text(text)
    options = ["-launcher", "ssh", "-launcher-exec", "/bin/false", "-verbose", "true"]
    process = subprocess.Popen(
        ["mpiexec.hydra", "-f", str(hostfile), "-n", str(total), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            return list(_entries(process, total))
        finally:
            process.kill()  # it would wait for its launchers


def _entries(process: subprocess.Popen[str], total: int) -> Iterator[tuple[str, int]]:
    assert process.stdout is not None
    left = total
    for line in process.stdout:
        match = _PROXY.search(line)
        if match is not None:
            left -= int(match[2])
            yield match[1], int(match[2])
        if left <= 0 or "rror" in line:
            return


def run(
    argv: Sequence[str],
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    errors_too: bool = False,
    may_fail: bool = False,
) -> str:
    """The output of a program that must exist and, unless it ``may_fail``, end well."""
    assert shutil.which(argv[0]), f"{argv[0]} is not installed"
    done = subprocess.run(
        argv,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if errors_too else subprocess.PIPE,
        text=True,
        env=env,
        timeout=LIMIT_S,
        check=False,
    )
    assert may_fail or done.returncode == 0, f"{argv}: {done.stdout} {done.stderr}"
    return done.stdout
