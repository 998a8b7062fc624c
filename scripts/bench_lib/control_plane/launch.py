"""From Enter to the first line of every rank: ours, torchrun by a loop of ssh, and DeepSpeed."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from virtual_hosts_lib.files import home_directory

from bench_lib.base.bed import Bed, need, run_tool
from bench_lib.base.errors import BenchError
from bench_lib.base.measure import Command, Expected, measure
from bench_lib.base.rounds import Case, Contender, Scenario, say
from bench_lib.base.stats import Quantity, Sample, Target

OURS, FLOOR, DEEPSPEED = "orchestrate run", "ssh + torchrun", "deepspeed over pdsh"
TORCHRUN, BARE = "orchestrate run --launcher torchrun", "ssh + python"
KEPT = "orchestrate run, kept"
KEPT_S = 600
LIMIT_S = 300.0
PIP_S = 600.0
DEEPSPEED_PACKAGES = ("setuptools", "wheel", "deepspeed==0.19.8")
SCRIPT = "first_line.py"
# A trivial job: what is measured is the way to it. `os` and nothing else, so no torch in the ranks.
PROGRAM = """\
import os
print(f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} is here", flush=True)
"""
LINE = re.compile(rb"rank (\d+) of \d+ is here")
# Two cores start the interpreters of all hosts here, so eight hosts get one rank each.
SHAPES = ((2, 2), (8, 1))
NOTE = (
    "The ranks print one line and import nothing heavy; the same interpreter and torch for all. "
    "Wall time ends with the first line of the last rank, CPU time with the command. The floor is "
    "a loop over `ssh HOST torchrun ...` with the script already in place; ours connects, probes, "
    "checks, syncs, launches and collects; with `--launcher torchrun` it has torchrun start the "
    "ranks; `kept` finds the connections and the warm process of the warm-up. "
    "`ssh + python` is a loop over `ssh HOST python` with the ranks' variables, one process "
    "for each rank: no launcher at all. "
    "All hosts share this machine's cores: eight hosts have one rank each, and what every launcher "
    "pays for importing torch there is not paid side by side as it would be on real nodes."
)


@dataclass(slots=True, kw_only=True)
class _Job:
    """`hosts` x `ranks` processes."""

    bed: Bed
    venv: Path
    hosts: int
    ranks: int
    ports: itertools.count[int] = field(default_factory=lambda: itertools.count(29500))

    def ours(self, *options: str, keep_s: int = 0) -> list[Command]:
        cluster = str(self.bed.inventory(self.hosts))
        words = ["run", "--cluster", cluster, "--ranks-per-node", str(self.ranks), "--follow"]
        words.append("--no-fabric-probe")  # which none of the others has
        words += options
        command = self.bed.orchestrate(*words, "--", SCRIPT, cwd=_project(self.bed), keep_s=keep_s)
        return [replace(command, merged=True)]  # the ranks' lines come among the progress

    def floor(self) -> list[Command]:
        """No probe, no sync, no logs, no clean-up: the script is there already."""
        names = self.bed.names(self.hosts)
        rest = ["--master-addr", names[0], "--master-port", str(next(self.ports)), SCRIPT]
        return [
            Command(argv=[*self.bed.ssh(), name, shlex.join(self._torchrun(rank) + rest)])
            for rank, name in enumerate(names)
        ]

    def bare(self) -> list[Command]:
        """A rank each by `ssh` alone: it has its variables, and nobody looks after it."""
        size = self.hosts * self.ranks
        ssh, names = self.bed.ssh(), self.bed.names(self.hosts)
        program = shlex.join([self.bed.python, SCRIPT])
        return [
            Command(
                argv=[
                    *ssh,
                    names[rank // self.ranks],
                    f"RANK={rank} WORLD_SIZE={size} {program}",
                ]
            )
            for rank in range(size)
        ]

    def _torchrun(self, node_rank: int) -> list[str]:
        size = ["--nnodes", str(self.hosts), "--nproc-per-node", str(self.ranks)]
        module = [self.bed.python, "-m", "torch.distributed.run"]
        return [*module, *size, "--node-rank", str(node_rank)]

    def deepspeed(self) -> list[Command]:
        """Its own launcher with its own defaults; `ssh` finds the hosts by a wrapper on PATH."""
        hostfile = self.bed.folder / f"hostfile-{self.hosts}"
        names = self.bed.names(self.hosts)
        hostfile.write_text("".join(f"{name} slots={self.ranks}\n" for name in names))
        # It runs in this directory on every host.
        script = f"{home_directory(self.bed.hosts.state.options.user)}/{SCRIPT}"
        argv = [str(self.venv / "bin/deepspeed"), "--hostfile", str(hostfile)]
        argv += ["--master_port", str(next(self.ports)), script]
        env = {
            "PATH": f"{_wrappers(self.bed)}:{os.environ['PATH']}",
            "HOME": str(self.bed.folder),
            "DS_ACCELERATOR": "cpu",
        }
        return [Command(argv=argv, env=env, cwd=Path("/"))]


def launch(bed: Bed, venv: Path) -> Scenario:
    """Two ranks on each of two hosts, and one on each of eight."""
    need("ssh", "pdsh")
    _check_torch(bed.python)
    for host in bed.names(max(hosts for hosts, _ in SHAPES)):
        (bed.hosts.home(host) / SCRIPT).write_text(PROGRAM)
    jobs = [_Job(bed=bed, venv=venv, hosts=hosts, ranks=ranks) for hosts, ranks in SHAPES]
    names = [_case_name(job) for job in jobs]
    return Scenario(
        name="launch",
        title="Launch: from Enter to the first line of every rank",
        ours=OURS,
        cases=[_case(job) for job in jobs],
        targets=[
            Target(case=name, quantity=Quantity.WALL, against=against, limit=limit, of=of)
            for name in names
            for of, against, limit in (
                (KEPT, BARE, 1.1),
                (None, FLOOR, 1.25),
                (None, DEEPSPEED, 0.45),
            )
        ],
        note=NOTE,
        profile=jobs[-1].ours()[0],
    )


def _case_name(job: _Job) -> str:
    return f"{job.hosts} hosts x {job.ranks} rank{'s' if job.ranks > 1 else ''}"


def _case(job: _Job) -> Case:
    expected = Expected(pattern=LINE, count=job.hosts * job.ranks)
    ways: dict[str, Callable[[], list[Command]]] = {
        OURS: job.ours,
        KEPT: partial(job.ours, keep_s=KEPT_S),
        TORCHRUN: partial(job.ours, "--launcher", "torchrun"),
        BARE: job.bare,
        FLOOR: job.floor,
        DEEPSPEED: job.deepspeed,
    }
    contenders = [Contender(name=n, run=partial(_run, make, expected)) for n, make in ways.items()]
    return Case(name=_case_name(job), contenders=contenders)


def _run(make: Callable[[], list[Command]], expected: Expected) -> Sample:
    done = measure(make(), timeout_s=LIMIT_S, expected=expected)
    return Sample(wall_s=done.shown_s, cpu_s=done.cpu_s)


def _project(bed: Bed) -> Path:
    """The user's own script, in a folder of its own."""
    folder = bed.folder / "project"
    folder.mkdir(exist_ok=True)
    (folder / SCRIPT).write_text(PROGRAM)
    return folder


def _wrappers(bed: Bed) -> Path:
    """A folder for PATH with an `ssh` that reads the hosts' configuration."""
    folder = bed.folder / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "ssh"
    real = shutil.which("ssh") or "ssh"
    config = shlex.quote(str(bed.hosts.ssh_config))
    program.write_text(f'#!/bin/sh\nexec {real} -F {config} "$@"\n')
    program.chmod(0o755)
    return folder


def _check_torch(python: str) -> None:
    try:
        run_tool([python, "-c", "import torch.distributed.run"])
    except BenchError as error:
        raise BenchError(f"{python} has no torch; next: --python PROGRAM") from error


def deepspeed_environment(python: str, given: Path | None, fresh: Path) -> Path:
    """A venv with DeepSpeed that uses `python`'s own packages; `given` if there is one."""
    if given is not None:
        run_tool([str(given / "bin/python"), "-c", "import deepspeed"])
        return given.resolve()
    say("making an environment for DeepSpeed")
    run_tool([python, "-m", "venv", str(fresh)], timeout_s=PIP_S)
    own = str(fresh / "bin/python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    base, site = (run_tool([program, "-c", code]).strip() for program in (python, own))
    (Path(site) / "base.pth").write_text(f"{base}\n")
    pip = [own, "-m", "pip", "install", "--quiet", "--no-build-isolation"]
    for packages in (DEEPSPEED_PACKAGES[:2], DEEPSPEED_PACKAGES[2:]):
        run_tool(["env", "DS_BUILD_OPS=0", *pip, *packages], timeout_s=PIP_S)
    return fresh
