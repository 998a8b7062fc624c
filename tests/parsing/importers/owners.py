"""The tools that own the formats, asked for what they read; a missing one is an error."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
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
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "ansible_program.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(home / "stderr").open("wb"),
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
    """What ``ssh -G`` makes of a command line, without any configuration but a named one."""
    config = () if "-F" in argv else ("-F", "/dev/null")
    done = run(["ssh", "-G", *config, *argv[1:]])
    settings: dict[str, tuple[str, ...]] = {}
    for line in done.splitlines():
        keyword, _, value = line.partition(" ")
        settings[keyword] = (*settings.get(keyword, ()), value)
    return settings


def slurm_hostnames(lists: Sequence[str], folder: Path) -> list[tuple[str, ...] | None]:
    """What ``scontrol show hostnames`` expands each list to; None where it refuses it."""
    conf = folder / "slurm.conf"
    conf.write_text("ClusterName=any\nSlurmctldHost=localhost\n")
    asked = "".join(f"show hostnames {text}\n" for text in lists) + "quit\n"
    env = {**os.environ, "SLURM_CONF": str(conf)}
    said = run(["scontrol"], stdin=asked, env=env, errors_too=True)
    answers: list[tuple[str, ...] | None] = []
    for block in said.split("scontrol: show hostnames ")[1:]:
        _, *names = block.split("scontrol: quit")[0].splitlines()
        refused = any(name.startswith(("Invalid", "scontrol: error")) for name in names)
        answers.append(None if refused else tuple(name for name in names if name))
    assert len(answers) == len(lists)
    return answers


def open_mpi_slots(text: str, folder: Path) -> dict[str, int] | None:
    """The slots of each node that Open MPI allocates from a hostfile; None where it refuses it."""
    hostfile = folder / "hostfile"
    hostfile.write_text(text)
    options = ["--mca", "ras_base_verbose", "10", "--do-not-launch", "-np", "1", "true"]
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
