"""Where a benchmark runs: virtual hosts, a folder that goes away, and the ways to call things."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from virtual_hosts_lib.hosts import VirtualHosts
from virtual_hosts_lib.state import Options

from .errors import BenchError
from .measure import Command

ROOT = Path(__file__).resolve().parents[3]
# The last line of `scripts/orchestrate`.
PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from orchestrator.__main__ import run; "
    'sys.argv[0] = "orchestrate"; sys.exit(run())'
)
NETWORK = "10.124.0.0/16"
TOOL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """A set of running hosts; `folder` is empty at first and removed at the end."""

    folder: Path
    hosts: VirtualHosts
    python: str
    count: int
    env: Mapping[str, str] = field(default_factory=dict)

    def names(self, count: int) -> list[str]:
        return self.hosts.names[:count]

    def nodeset(self, count: int) -> str:
        """The first hosts as clush and pdsh write them."""
        prefix = self.hosts.state.options.name_prefix
        return f"{prefix}[1-{count}]" if count > 1 else f"{prefix}1"

    def inventory(self, count: int, transport: str = "asyncssh") -> Path:
        """An inventory of the first `count` hosts."""
        path = self.folder / f"virtual-{count}-{transport}.yaml"
        whole = self.hosts.inventory.read_text().replace(
            "defaults:\n", f"defaults:\n  transport: {transport}\n"
        )
        path.write_text(whole.replace(self.nodeset(self.count), self.nodeset(count)))
        return path

    def ssh(self) -> list[str]:
        """argv of OpenSSH's client, up to the host."""
        return ["ssh", "-F", str(self.hosts.ssh_config), "-o", "BatchMode=yes"]

    def orchestrate(self, *arguments: str, cwd: Path | None = None, keep_s: int = 0) -> Command:
        """Ours, as it stands in this checkout; its connections stay for `keep_s`, and then a warm
        process, too: such a command is started as `scripts/orchestrate` does.
        """
        keeps = keep_s > 0
        start = ["-P", "-S", "-c", PROGRAM, str(ROOT)] if keeps else ["-m", "orchestrator"]
        env = {
            **self.env,
            "ORCHESTRATE_KEEP_CONNECTIONS": str(keep_s),
            "ORCHESTRATE_WARM": "1" if keeps else "0",
        }
        home = Path(self.env["ORCHESTRATE_HOME"]) if keeps else None
        argv = [self.python, *start, *arguments]
        return Command(argv=argv, env=env, cwd=cwd or self.folder, home=home)

    def hosts_cpu_s(self) -> float | None:
        """CPU time of all processes on the hosts so far; None without control groups v2."""
        found = [_cpu_s(host.cgroups) for host in self.hosts.state.hosts]
        return math.fsum(s for s in found if s is not None) if None not in found else None

    def forget(self) -> None:
        """Remove what our coordinator keeps between commands."""
        shutil.rmtree(self.env["ORCHESTRATE_HOME"], ignore_errors=True)


@contextlib.contextmanager
def make_bed(
    count: int, python: str, share: Sequence[str] = (), user: str = "root"
) -> Iterator[Bed]:
    """Hosts and a temporary folder; both are gone afterwards, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as name:
        folder = Path(name)
        options = Options(
            count=count, network=NETWORK, python=python, share=tuple(share), user=user
        )
        hosts = VirtualHosts(folder / "hosts")
        try:
            VirtualHosts.up(folder / "hosts", options)
            work = folder / "work"
            work.mkdir()
            env = {"ORCHESTRATE_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
            # What stays between commands is found in the home, and ends when that is gone.
            env["XDG_RUNTIME_DIR"] = ""
            # As installed programs have it: compiled in the round that warms up.
            env["PYTHONDONTWRITEBYTECODE"] = ""
            yield Bed(folder=work, hosts=hosts, python=python, count=count, env=env)
        finally:
            hosts.down()


def _cpu_s(groups: Sequence[str]) -> float | None:
    for group in groups:
        with contextlib.suppress(OSError):
            for line in Path(group, "cpu.stat").read_text().splitlines():
                if line.startswith("usage_usec "):
                    return int(line.split()[1]) / 1e6
    return None


def run_tool(argv: Sequence[str], *, timeout_s: float = TOOL_S, cwd: Path | None = None) -> str:
    """Output of a command that only prepares something.  Raises BenchError."""
    try:
        done = subprocess.run(
            list(argv), capture_output=True, text=True, timeout=timeout_s, check=True, cwd=cwd
        )
    except FileNotFoundError as error:
        raise BenchError(f"{argv[0]} is not installed; docs/benchmarks.md lists what is") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{' '.join(argv)}: not done within {timeout_s:g} s") from error
    except subprocess.CalledProcessError as error:
        text = f"{error.stdout}{error.stderr}"[-2000:].strip()
        raise BenchError(f"{' '.join(argv)} ended with {error.returncode}:\n{text}") from error
    return done.stdout + done.stderr


def need(*tools: str) -> None:
    """Raises BenchError for what is not installed: a contender that is missing is not beaten."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise BenchError(f"not installed: {', '.join(missing)}; docs/benchmarks.md lists what is")


def cores() -> int:
    return len(os.sched_getaffinity(0))
