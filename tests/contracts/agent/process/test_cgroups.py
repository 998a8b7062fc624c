"""What is in an attempt's control group is found and ended, whatever it forgot about itself."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.node_agent.base.node_layout import AttemptLayout
from orchestrator.node_agent.process import cgroups
from orchestrator.node_agent.process.cgroups import ControlGroup, name_of, own_group
from orchestrator.node_agent.process.processes import living_processes, sweep_processes
from tests.contracts.agent.attempts import Attempt, eventually, exists, running, shell
from tests.time_limits import scaled, wait_for_exit

OWN = own_group()
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        OWN is None or not os.access(OWN, os.W_OK),
        reason="hardware: no control groups of version 2 that we may write",
    ),
]
# Leaves everything that could identify it: environment, session, parents.
ESCAPE = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sleep", [sys.argv[1], "300"], {})
    os._exit(0)
"""


@pytest.fixture
def layout(tmp_path: Path) -> AttemptLayout:
    return AttemptLayout(str(tmp_path))


@pytest.fixture
def group(layout: AttemptLayout) -> Iterator[ControlGroup]:
    group = ControlGroup.create(layout)
    assert group is not None
    yield group
    group.kill()
    sweep_processes(lambda: living_processes(group.pids()), 5.0, group.kill)
    group.remove()


def sleeper(group: ControlGroup, count: int = 1) -> list[subprocess.Popen[bytes]]:
    """Processes in ``group``."""
    enter = f"{group.path}/cgroup.procs"
    script = f"echo $$ > {enter}; exec sleep 300"
    processes = [subprocess.Popen(["sh", "-c", script]) for _ in range(count)]
    assert [p.poll() for p in processes] == [None] * count
    return processes


def named(text: str) -> list[int]:
    """Pids of processes whose command line has ``text``, other than pytest."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == text.encode():
            found.append(int(entry.name))
    return found


def place_of(attempt: Attempt) -> Path:
    """Where the attempt's group is, while it has one."""
    return Path(str(OWN), name_of(AttemptLayout(str(attempt.root))))


async def test_nothing_escapes_a_group(attempt: Attempt) -> None:
    """No environment, a session of its own, two forks away, and the supervisor was killed."""
    mark = f"escaped-{uuid.uuid4().hex[:8]}"
    reply = await attempt.launch(
        {"label": "rank-0", "rank": 0, "argv": [sys.executable, "-c", ESCAPE, mark], "env": {}},
        shell(1, "exec sleep 300"),
    )
    await eventually(lambda: named(mark))
    await attempt.ask("signal", target="supervisor", signal="KILL", epoch=1)
    await eventually(lambda: not exists(reply.fields["supervisor"]["pid"]))
    (escaped,) = named(mark)

    swept = await attempt.ask("sweep")

    assert escaped in swept["killed"]
    assert swept["clean"] is True
    assert not exists(escaped)
    assert not place_of(attempt).exists()


async def test_a_run_that_ends_leaves_no_group(attempt: Attempt) -> None:
    """The supervisor says which means it had, ends those who stayed and removes the group."""
    mark = f"escaped-{uuid.uuid4().hex[:8]}"
    argv = [sys.executable, "-c", ESCAPE, mark]
    await attempt.launch({"label": "rank-0", "rank": 0, "argv": argv, "env": {}}, grace_s=0.2)

    concluded = await attempt.to_end()

    assert concluded["mechanism"] == "cgroup"
    assert concluded["clean"] is True
    assert named(mark) == []
    assert not place_of(attempt).exists()


async def test_without_a_group_the_marker_and_descent_do(attempt: Attempt) -> None:
    """The name is taken: the run starts all the same and is swept as before."""
    taken = place_of(attempt)
    taken.mkdir()
    try:
        await attempt.launch(shell(0, "setsid sleep 300 & exit 0"), grace_s=0.2)
        concluded = await attempt.to_end()
    finally:
        taken.rmdir()

    assert concluded["mechanism"] == "subreaper"
    assert concluded["clean"] is True
    assert running(attempt.names["run"]) == []


@pytest.mark.parametrize("kernel", ["new", "old"])
def test_all_are_killed_also_in_groups_below(
    group: ControlGroup, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    """By `cgroup.kill`, and on kernels without it by freezing first."""
    if kernel == "old":
        monkeypatch.setattr(cgroups, "KILL", "cgroup.no-such-file")
    below = ControlGroup(f"{group.path}/below")
    Path(below.path).mkdir()
    processes = [*sleeper(group, 2), *sleeper(below, 2)]
    _await_members(group, 4)
    assert {p.pid for p in processes} == set(group.pids())

    group.kill()

    assert [wait_for_exit(p, 5) for p in processes] == [-9] * 4
    assert group.pids() == []
    group.remove()
    assert not Path(group.path).exists()


def _await_members(group: ControlGroup, count: int) -> None:
    for _ in range(500):
        if len(group.pids()) == count:
            return
        subprocess.run(["sleep", "0.01"], check=True)
    pytest.fail(f"never {count} members: {group.pids()}")


def test_a_record_counts_only_for_its_own_group(
    group: ControlGroup, layout: AttemptLayout, tmp_path: Path
) -> None:
    """A record that names anything else names nothing: it could have been written by a rank."""
    other = Path(str(OWN), f"other-{uuid.uuid4().hex[:8]}")
    other.mkdir()
    elsewhere = tmp_path / name_of(layout)
    elsewhere.mkdir()
    link = tmp_path / "link"
    link.symlink_to(str(OWN))
    try:
        wrong = ["", "/", str(OWN), str(other), str(elsewhere), f"{link}/{name_of(layout)}"]
        wrong += [f"{group.path}/../{name_of(layout)}", f"{group.path}/", "a\0b", "x" * 5000]
        for text in wrong:
            Path(layout.cgroup).write_text(text)
            assert ControlGroup.recorded(layout) is None, text
        Path(layout.cgroup).write_text(group.path)
        found = ControlGroup.recorded(layout)
        assert found is not None
        assert found.path == group.path
    finally:
        other.rmdir()


def test_a_group_that_holds_ourselves_is_left_alone(
    group: ControlGroup, layout: AttemptLayout
) -> None:
    """Whoever sweeps from inside of a rank would end itself."""
    script = (
        "import sys; from orchestrator.node_agent.process.cgroups import ControlGroup\n"
        "from orchestrator.node_agent.base.node_layout import AttemptLayout\n"
        "layout = AttemptLayout(sys.argv[1]); ControlGroup(sys.argv[2]).enter()\n"
        "sys.exit(ControlGroup.recorded(layout) is not None)"
    )
    argv = [sys.executable, "-c", script, layout.root, group.path]
    assert subprocess.run(argv, timeout=scaled(30), check=False).returncode == 0
    assert ControlGroup.recorded(layout) is not None
