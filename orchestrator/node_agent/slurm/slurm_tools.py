"""Slurm's own commands on a node: where they are, what they say, and what it says of the node."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from orchestrator.node_agent.base.agent_errors import AgentFault, no_answer_reason
from orchestrator.node_agent.base.login import login_environment
from orchestrator.node_agent.base.node_layout import NodeLayout
from orchestrator.node_agent.base.site_tools import add_folders, run_tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# Where sites put Slurm when it is not on the PATH of a command over SSH.
FOLDERS = ("/usr/bin", "/usr/local/bin", "/opt/slurm/bin", "/opt/slurm/current/bin")
NO_NODE = "OR-AGENT-SLURM"
WALKS_TREES = "proctrack/linuxproc"
COMMAND_S = 15.0
MAX_OUTPUT = 16 * 1024 * 1024
# States of a node in which Slurm gives it to nobody, as sinfo abbreviates them.
OUT_OF_USE = ("boot", "down", "drain", "drng", "fail", "failg", "futr", "inval", "pow_dn", "unk")
GPUS = re.compile(r"(?:^|,)gpu(?::[^:,()]+)?:(\d+)")
COMPLAINT = re.compile(r"^(?:slurm_load_\w+ error|\w+): (?:error: |fatal: )?")


class SlurmError(Exception):
    """A command of Slurm is missing, failed, or did not answer; in its own words."""


def environment() -> dict[str, str]:
    """What Slurm's commands get: nothing of the ranks' variables, which srun would hand on."""
    return add_folders(login_environment(), FOLDERS)


def tool(name: str) -> str:
    """The path of a command. Raises :class:`SlurmError`."""
    found = shutil.which(name, path=environment()["PATH"])
    if found is None:
        raise SlurmError(f"{name} is not installed here: this is no node of a Slurm cluster")
    return found


def ask(name: str, *arguments: str, within_s: float = COMMAND_S) -> str:
    """What the command prints. Raises :class:`SlurmError`."""
    argv = [tool(name), *arguments]
    try:
        done = run_tool(argv, within_s, environment())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{name}: {no_answer_reason(error)}") from error
    if done.returncode:
        said = complaint(done.stderr.decode(errors="replace").splitlines())
        raise SlurmError(said or f"{name} ended with {done.returncode}")
    return done.stdout[:MAX_OUTPUT].decode(errors="replace")


def complaint(lines: list[str]) -> str:
    """What Slurm complains of, without its prefixes; the first two things."""
    errors = [line for line in lines if " error:" in line or " fatal:" in line] or lines[:1]
    return "; ".join(COMPLAINT.sub("", line).strip() for line in errors[:2])


def signals_whole_trees() -> bool:
    """Whether Slurm signals every process below its tasks. By control groups or process groups it
    signals the tasks alone, until it kills; that is also assumed where it does not tell.
    """
    try:
        shown = ask("scontrol", "show", "config")
    except SlurmError:
        return False
    return WALKS_TREES in re.findall(r"^ProctrackType\s*=\s*(\S+)", shown, re.MULTILINE)


# ---- nodes -------------------------------------------------------------------------------------


def describe_node(layout: NodeLayout, request: Mapping[str, Any]) -> dict[str, Any]:
    """Slurm's name for this node, and what it has to give. Raises :class:`AgentFault`."""
    del layout, request
    host = os.uname().nodename
    try:
        tool("srun")
        return find_node(host, sinfo(host) or sinfo(""))
    except SlurmError as error:
        raise AgentFault(NO_NODE, str(error)) from error


def sinfo(host: str) -> list[str]:
    """One line per node and partition, of this host or of all."""
    chosen = [f"--nodes={host},{host.partition('.')[0]}"] if host else []
    return ask("sinfo", "--noheader", "--Node", *chosen, "--format=%N|%n|%t|%c|%G|%E").splitlines()


def find_node(host: str, lines: list[str]) -> dict[str, Any]:
    """This host among sinfo's lines. Raises :class:`SlurmError`."""
    short = host.partition(".")[0]
    for line in lines:
        name, hostname, state, cpus, generic, reason = line.split("|", 5)
        if short not in (name.partition(".")[0], hostname.partition(".")[0]):
            continue
        if state.endswith("*") or state.rstrip("*$~#!%@^-+") in OUT_OF_USE:
            raise SlurmError(f"Slurm's node {name} is out of use: {state} ({reason.strip()})")
        gpus = sum(int(count) for count in GPUS.findall(generic))
        return {"name": name, "cpus": int(re.sub(r"\D.*", "", cpus) or 0), "gpus": gpus}
    raise SlurmError(f"Slurm does not know {host}: it is no node of this Slurm cluster")
