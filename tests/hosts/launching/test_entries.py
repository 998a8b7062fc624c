"""What people give to `run`, in the environment that the inventory names, on real hosts."""

from __future__ import annotations

import json
import sys
import sysconfig

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.running import Desk

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

PAIR = ("vh1", "vh2")
ON_PAIR = ("--nodes", ",".join(PAIR))
# Each rank says which Python runs it, which programs it finds, and whom it met.
WHERE = """
import os, shutil, subprocess, sys
import torch, torch.distributed as dist
home = os.path.expanduser("~")
child = subprocess.run(["python", "-c", "import sys; print(sys.prefix)"], capture_output=True)
found = [sys.prefix, shutil.which("labtool"), os.environ["VIRTUAL_ENV"], child.stdout.decode()]
print(*(path.strip().replace(home, "~") for path in found))
dist.init_process_group("gloo")
total = torch.ones(1)
dist.all_reduce(total)
print("met", int(total), *sys.argv[1:])
dist.destroy_process_group()
"""
IN_FORCE = "~/vv ~/vv/bin/labtool ~/vv ~/vv"


@pytest.fixture
def lab(desk: Desk, hosts: VirtualHosts) -> Desk:
    """A desk whose nodes have a virtual environment of their own, with torch and a program."""
    packages = sysconfig.get_path("purelib")
    for name in hosts.names:
        home = hosts.home(name)
        if not (home / "vv").exists():
            in_home = ["sh", "-c", f"cd && {sys.executable} -m venv --without-pip vv"]
            hosts.exec(name, in_home)
            (site,) = (home / "vv/lib").glob("python*/site-packages")
            (site / "torch.pth").write_text(packages + "\n")
            tool = home / "vv/bin/labtool"
            tool.write_text('#!/bin/sh\necho "labtool of $VIRTUAL_ENV"\n')
            tool.chmod(0o755)
    declared = f"python: {{interpreter: {json.dumps(sys.executable)}}}"
    text = hosts.inventory.read_text()
    assert declared in text
    desk.cluster = desk.project.parent / "lab.yaml"
    desk.cluster.write_text(text.replace(declared, 'python: {venv: "~/vv"}'))
    desk.script("where.py", WHERE)
    (desk.project / "jobs").mkdir()
    (desk.project / "jobs/__init__.py").write_text("")
    (desk.project / "jobs/ddp.py").write_text(WHERE)
    return desk


def said(desk: Desk, *words: str, launcher: str) -> dict[str, list[str]]:
    """What each rank wrote; the run succeeded."""
    job, ending = desk.run(*words, launcher=launcher, options=ON_PAIR)
    assert ending.code == 0, ending.err
    return {file: lines for file, lines in job.lines().items() if file.endswith(".out")}


@pytest.mark.parametrize(
    "words,launcher",
    [
        (("where.py", "x"), "direct"),
        (("python", "-X", "utf8", "where.py", "x"), "auto"),
        (("-m", "jobs.ddp", "x"), "torchrun"),
        (("~/vv/bin/python", "-m", "jobs.ddp", "x"), "direct"),
    ],
)
def test_ranks_meet_in_the_environment_of_the_inventory(
    lab: Desk, words: tuple[str, ...], launcher: str
) -> None:
    """However a Python program is named; by `python` is meant the one of the inventory."""
    expected = [IN_FORCE, "met 2 x"]
    assert said(lab, *words, launcher=launcher) == {
        "vh1/rank-0.out": expected,
        "vh2/rank-1.out": expected,
    }


def test_commands_find_the_programs_of_the_environment(lab: Desk) -> None:
    (lines,) = set(map(tuple, said(lab, "labtool", launcher="auto").values()))
    assert lines == ("labtool of /root/vv",)


def test_a_shell_script_is_given_ranks_by_any_launcher(lab: Desk) -> None:
    """By torchrun, too, which starts .py files by itself only; it may go on to a Python."""
    script = lab.project / "job.sh"
    script.write_text('#!/bin/sh\necho "rank $RANK of $WORLD_SIZE"\nexec python where.py\n')
    script.chmod(0o755)
    lines = said(lab, "./job.sh", launcher="torchrun")
    assert lines == {
        f"vh{n + 1}/rank-{n}.out": [f"rank {n} of 2", IN_FORCE, "met 2"] for n in range(2)
    }
