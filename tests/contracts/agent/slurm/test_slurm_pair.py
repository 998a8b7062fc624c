"""The offer on a node and the task that Slurm would start: one launcher, owned by two."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.node_agent.slurm import slurm_offer, slurm_task
from orchestrator.node_agent.slurm.slurm_task import Lines, address_of
from tests.architecture.source import ROOT
from tests.hosts.running import wait_until
from tests.time_limits import assert_within, communicate, scaled, wait_for_exit

pytestmark = pytest.mark.processes

PYTHON = (sys.executable, "-I", "-S")
LAUNCHER = 'echo "$SECRET $SLURM_PROCID $CUDA_VISIBLE_DEVICES"; pwd; echo told >&2; '
TEXT = Path(slurm_task.__file__).read_text()

# Signals what is about to become a launcher, and says how that ended.
TOLD_AT_ONCE = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from orchestrator.node_agent.slurm import slurm_task

def told_at_once(*words):
    os.kill(os.getpid(), signal.SIGTERM)
    become(*words)

wake = slurm_task.Wake(signal.SIGCHLD, *slurm_task.TOLD_BY_SLURM)
become, slurm_task.become = slurm_task.become, told_at_once
pid = slurm_task.begin({"argv": ["/bin/true"], "env": {}, "cwd": "/"}, [1, 2])
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


class Pair:
    """Both ends on Slurm's node ``n1``, in processes of their own; no Slurm is needed for that."""

    def __init__(self, folder: Path) -> None:
        self.name = secrets.token_hex(8)
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def offer(self, script: str, *options: str) -> subprocess.Popen[bytes]:
        own = {"ORCHESTRATE_ATTEMPT": "1", "SECRET": "s3cret", "PATH": os.environ["PATH"]}
        argv = [*PYTHON, slurm_offer.__file__, self.name, "n1", *options]
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            offer = subprocess.Popen(
                [*argv, "--", "/bin/sh", "-c", script],
                stdout=out,
                stderr=err,
                env={**own, "CUDA_VISIBLE_DEVICES": "planned"},
                cwd=self.folder,
            )
        self.started.append(offer)
        return offer

    def task(self) -> subprocess.Popen[bytes]:
        slurms = {"SLURMD_NODENAME": "n1", "SLURM_PROCID": "7", "CUDA_VISIBLE_DEVICES": "given"}
        argv = [*PYTHON, "-c", TEXT, f"{self.name}.1"]
        pipe = subprocess.PIPE
        task = subprocess.Popen(argv, stdout=pipe, stderr=pipe, env=slurms, cwd="/")
        self.started.append(task)
        return task

    def written(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    for process in pair.started:
        process.kill()
        process.communicate()


def test_the_launcher_runs_where_slurm_put_it_as_the_node_planned_it(pair: Pair) -> None:
    """Environment, directory and logs are the node's; what Slurm decides for a task is Slurm's."""
    offer, task = pair.offer(LAUNCHER + "exit 5"), pair.task()
    said, _ = communicate(task, 20)
    assert wait_for_exit(offer, 20) == 5
    assert (task.returncode, said) == (0, b"began n1\n")
    assert pair.written("out") == f"s3cret 7 given\n{pair.folder}\n"
    assert pair.written("err") == "told\n"


def test_a_launcher_that_dies_of_a_signal_does_so_on_both_sides(pair: Pair) -> None:
    offer, _ = pair.offer("kill -9 $$"), pair.task()
    assert wait_for_exit(offer, 20) == -signal.SIGKILL


def test_what_the_supervisor_asks_for_reaches_the_launcher(pair: Pair) -> None:
    offer = pair.offer("trap 'echo asked; exit 6' TERM; echo up; while :; do sleep 0.05; done")
    pair.task()
    wait_until("a launcher", lambda: pair.written("out") == "up\n")
    offer.terminate()
    assert wait_for_exit(offer, 20) == 6
    assert pair.written("out") == "up\nasked\n"


def test_slurm_may_signal_the_launcher_long_before_the_task(pair: Pair) -> None:
    """It signals the processes of a step one by one, and a busy machine lets the first one end."""
    offer = pair.offer("echo $$; exec sleep 100")
    task = pair.task()
    wait_until("a launcher", lambda: pair.written("out").endswith("\n"))
    launcher = int(pair.written("out"))
    os.kill(launcher, signal.SIGTERM)
    wait_until("its end", lambda: not Path(f"/proc/{launcher}").exists())
    task.terminate()

    assert wait_for_exit(offer, 20) == 1
    assert "OR-SLURM-005: Slurm ended job" in pair.written("err")


def test_a_launcher_that_somebody_else_ends_is_not_ended_by_slurm(pair: Pair) -> None:
    offer, _ = pair.offer("kill -TERM $$"), pair.task()
    assert wait_for_exit(offer, 20) == -signal.SIGTERM


def test_a_launcher_that_is_told_before_it_is_one_ends() -> None:
    """The signal comes between the fork, after which our handlers are there still, and the exec."""
    argv = [*PYTHON, "-c", TOLD_AT_ONCE, str(ROOT)]
    said = subprocess.run(
        argv, capture_output=True, text=True, timeout=scaled(20), check=True
    ).stdout
    assert int(said) == -signal.SIGTERM


def test_an_offer_without_a_task_ends_when_asked(pair: Pair) -> None:
    offer = pair.offer("true")
    wait_until("an offer", lambda: listens(pair))
    offer.terminate()
    assert wait_for_exit(offer, 20) == -signal.SIGTERM


def test_a_supervisor_that_dies_takes_the_launcher_along(pair: Pair) -> None:
    offer, task = pair.offer("echo $$; while :; do sleep 0.05; done"), pair.task()
    wait_until("a launcher", lambda: pair.written("out"))
    launcher = int(pair.written("out"))
    offer.kill()
    assert wait_for_exit(task, 20) == 0
    assert not Path(f"/proc/{launcher}").exists()


@pytest.mark.parametrize("number,how", [(signal.SIGTERM, "with signal 15"), (signal.SIGKILL, "")])
def test_what_slurm_ends_is_told_as_such(pair: Pair, number: int, how: str) -> None:
    """Slurm signals the task and what it started; KILL leaves the task no word."""
    offer, task = pair.offer("echo up; exec sleep 60"), pair.task()
    wait_until("a launcher", lambda: pair.written("out") == "up\n")
    launcher = Path(f"/proc/{task.pid}/task/{task.pid}/children").read_text().split()
    task.send_signal(number)
    for pid in launcher:
        with suppress(ProcessLookupError):  # it does not outlive a task that was killed
            os.kill(int(pid), number)
    assert wait_for_exit(offer, 20) == 1
    last = pair.written("err").splitlines()[-1]
    assert last.startswith("OR-SLURM-005: Slurm ended job")
    assert how in last


def test_what_slurm_tells_the_task_alone_reaches_the_launcher(pair: Pair) -> None:
    """As where Slurm tracks processes by control groups; and the launcher hears it once."""
    script = "trap 'echo asked; sleep 0.5; exit 6' TERM; echo up; while :; do sleep 0.05; done"
    offer, task = pair.offer(script), pair.task()
    wait_until("a launcher", lambda: pair.written("out") == "up\n")
    task.terminate()
    assert wait_for_exit(offer, 20) == 1
    assert pair.written("out") == "up\nasked\n"
    assert "OR-SLURM-005: Slurm ended job" in pair.written("err")


def test_the_port_is_kept_until_the_launcher_needs_it(pair: Pair) -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    bind = f"import socket;socket.create_server(('', {port}));print('got it')"
    offer = pair.offer(f'exec {sys.executable} -I -S -c "{bind}"', "--hold", str(port))
    wait_until("an offer", lambda: listens(pair))
    with pytest.raises(OSError, match="in use"), socket.create_server(("", port)):
        pass
    pair.task()
    assert wait_for_exit(offer, 20) == 0
    assert pair.written("out") == "got it\n"


def test_orders_are_taken_from_nobody_else(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    """Another user who listens in the supervisor's place gets no say."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(address_of(pair.name, "n1"))
        other.listen(1)
        monkeypatch.setattr(slurm_task, "peer_uid", lambda _: os.geteuid() + 1)
        with pytest.raises(PermissionError):
            slurm_task.connect(address_of(pair.name, "n1"))


def test_nobody_there_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    monkeypatch.setattr(slurm_task, "CONNECT_S", 0.2)
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        slurm_task.connect(address_of(pair.name, "n1"))
    assert_within("a connection to nobody", time.monotonic() - began, 5)


def test_long_orders_arrive_whole() -> None:
    """An environment may be larger than what a socket takes at once."""
    here, there = (Lines(end) for end in socket.socketpair())
    order = {"env": {f"V{n}": "x" * 1000 for n in range(100)}}
    here.say(order, descriptors=(0,))
    heard: list[dict[str, object]] = []
    while not heard:
        heard = there.hear() or []
    assert heard == [order]
    assert len(there.descriptors) == 1
    os.close(there.descriptors[0])
    here.connection.close()
    assert there.hear() is None
    there.connection.close()


def listens(pair: Pair) -> bool:
    name = address_of(f"{pair.name}.1", "n1").replace(b"\0", b"@").decode()
    return f" {name}\n" in Path("/proc/net/unix").read_text()
