"""The rank shim: invisible to the rank and its launcher, and exact about the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.agent.attempts import (
    Attempt,
    eventually,
    exists,
    launcher,
    parent_of,
    running,
    shell,
    shimmed,
)
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

HOLD = "echo up; sleep 300 & wait"
# Says how often it is asked to end, and stays for long enough to be asked again.
ASKED = (
    'n=0; trap "n=1; echo asked" TERM; echo up; until [ $n = 1 ]; do sleep 0.02; done; '
    "sleep 1 & wait; wait; exit 42"
)
BY_US = {"ORCHESTRATE_SIGNALS_ALL": str(os.getpid())}
TORCHRUN_RANK = """
import os, time
import torch.distributed as dist
dist.init_process_group("gloo")
total = __import__("torch").ones(1)
dist.all_reduce(total)
print("sum", int(total), flush=True)
print("last words of", os.environ["RANK"], file=__import__("sys").stderr, flush=True)
if os.path.exists(os.environ["HOLD"]):
    time.sleep(300)
dist.destroy_process_group()  # its threads would abort an interpreter that ends beside them
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
async def test_signals_pass_through(attempt: Attempt, number: int) -> None:
    """A launcher that signals the shim signals the rank, which may answer as it likes."""
    name = signal.Signals(number).name
    script = f'trap "echo got {name}; exit 42" {name}; echo up; while :; do sleep 0.02; done'
    await attempt.launch(launcher("bash", "-c", shimmed(0, script)))
    await attempt.follow(lambda a: a.seen("rank-started") and "rank-0.out" in a.files)
    rank_pid = attempt.only("rank-started")["pid"]
    shim_pid = parent_of(rank_pid)

    os.kill(shim_pid, number)
    await attempt.to_end()

    assert attempt.files["rank-0.out"] == f"up\ngot {name}\n".encode()
    assert attempt.only("rank-exited")["outcome"] == {"exited": 42}
    assert attempt.only("rank-exited")["by_us"] is False


def signal_by_another(pid: int) -> None:
    """TERM from a process that is not this one."""
    subprocess.run(["kill", "-TERM", str(pid)], check=True, timeout=scaled(10))


def signal_everybody(rank_pid: int, shim_pid: int) -> None:
    """As Slurm does where it walks the tree of processes: each gets one, and is continued."""
    for pid in (shim_pid, rank_pid):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("order", ["everybody", "launcher, everybody", "everybody, launcher"])
async def test_who_signals_everybody_is_heard_once(attempt: Attempt, order: str) -> None:
    """The launcher, which is signalled, too, asks its ranks to end a moment before or after."""
    await attempt.launch(launcher("bash", "-c", shimmed(0, ASKED), **BY_US))
    await attempt.follow(lambda a: a.seen("rank-started") and "rank-0.out" in a.files)
    rank_pid = attempt.only("rank-started")["pid"]
    shim_pid = parent_of(rank_pid)

    for who in order.split(", "):
        if who == "launcher":
            signal_by_another(shim_pid)
        else:
            signal_everybody(rank_pid, shim_pid)
    await attempt.to_end()

    assert attempt.files["rank-0.out"] == b"up\nasked\n"
    assert attempt.only("rank-exited")["outcome"] == {"exited": 42}


async def test_a_launcher_alone_is_heard_where_somebody_may_signal_everybody(
    attempt: Attempt,
) -> None:
    await attempt.launch(launcher("bash", "-c", shimmed(0, ASKED), **BY_US))
    await attempt.follow(lambda a: a.seen("rank-started") and "rank-0.out" in a.files)

    signal_by_another(parent_of(attempt.only("rank-started")["pid"]))
    await attempt.to_end()

    assert attempt.files["rank-0.out"] == b"up\nasked\n"


@pytest.mark.parametrize("ending", ["exit 7", "kill -SEGV $$", "kill -KILL $$", "kill -INT $$"])
async def test_a_launcher_sees_the_same_end(attempt: Attempt, ending: str) -> None:
    """The shim's own exit status is the rank's: bash prints 128 + n for signal n for both."""
    plain = f"bash -c '{ending}'; echo plain $?"
    words = f"trap : TERM; {plain}; {shimmed(0, ending)}; echo shim $?"  # it may be told to end
    await attempt.launch(launcher("bash", "-c", words))

    await attempt.to_end()

    lines = dict(line.split() for line in attempt.files["launcher.out"].decode().splitlines())
    assert lines["plain"] == lines["shim"] != "0"


async def test_a_shim_that_is_killed_takes_its_rank_along(attempt: Attempt) -> None:
    """Nobody is left to record, and still the end is recorded: the kernel killed the rank."""
    await attempt.launch(launcher("bash", "-c", shimmed(0, HOLD) + "; sleep 300"))
    await attempt.follow(lambda a: a.seen("rank-started") and "rank-0.out" in a.files)
    rank_pid = attempt.only("rank-started")["pid"]
    shim_pid = parent_of(rank_pid)

    os.kill(shim_pid, signal.SIGKILL)
    await attempt.to_end()

    assert attempt.only("rank-exited")["outcome"] == {"signalled": signal.SIGKILL}
    assert attempt.only("rank-exited")["by_us"] is False
    assert not exists(rank_pid)


async def test_a_launcher_that_is_killed_is_the_first_to_fail(attempt: Attempt) -> None:
    """Its ranks get a TERM from their shims; the launcher is the one that nobody of us ended."""
    await attempt.launch(launcher("bash", "-c", shimmed(0, HOLD) + " & wait"))
    await attempt.follow(lambda a: a.seen("rank-started") and "rank-0.out" in a.files)

    os.kill(attempt.only("process-started")["pid"], signal.SIGKILL)
    concluded = await attempt.to_end()

    assert attempt.only("process-exited")["by_us"] is False
    assert attempt.only("process-exited")["outcome"] == {"signalled": signal.SIGKILL}
    assert attempt.only("rank-exited")["by_us"] is True
    assert concluded["clean"] is True


async def test_a_rank_runs_on_the_processors_that_the_plan_names(attempt: Attempt) -> None:
    """One list for each local rank; what cannot be read, or is not there, binds nobody."""
    tell = "grep Cpus_allowed_list /proc/self/status"
    last = max(os.sched_getaffinity(0))
    words = [
        f'ORCHESTRATE_RANK_CPUS="{cpus}" {shimmed(number, tell)}'
        for number, cpus in enumerate([f"{last};0", f"0;{last}", "0;0;nonsense", "0;0;0;99999"])
    ]
    await attempt.launch(launcher("bash", "-c", "; ".join(words)))
    await attempt.to_end()

    said = [attempt.files[f"rank-{number}.out"].decode().split()[-1] for number in range(4)]
    assert said[:2] == [str(last), str(last)]
    assert said[2:] == [allowed_here()] * 2


async def test_a_rank_without_a_launcher_runs_there_too(attempt: Attempt) -> None:
    last = max(os.sched_getaffinity(0))
    env = {"LOCAL_RANK": "1", "ORCHESTRATE_RANK_CPUS": f"nonsense;{last}"}
    argv = ["grep", "Cpus_allowed_list", "/proc/self/status"]
    await attempt.launch({"label": "rank-1", "rank": 1, "argv": argv, "env": env})
    await attempt.to_end()

    assert attempt.files["rank-1.out"].decode().split()[-1] == str(last)


def allowed_here() -> str:
    """The processors of this process, as the kernel writes them."""
    return Path("/proc/self/status").read_text().partition("Cpus_allowed_list:")[2].split()[0]


async def test_forged_records_do_no_harm(attempt: Attempt) -> None:
    """A rank can write where its shim writes; the supervisor shrugs and concludes."""
    forged = [
        "echo '[]' > rank-5-1.start",
        "echo '{' > rank-6-1.start",
        "head -c 100000 /dev/zero > rank-7-1.start",
        'echo \'{"outcome":{"exited":[]}}\' > rank-0-1.end',
    ]
    script = f"cd {{attempt}}/ranks; {'; '.join(forged)}; sleep 0.2; {shimmed(1, 'exit 0')}"
    await attempt.launch(launcher("bash", "-c", script))

    concluded = await attempt.to_end()

    assert concluded["outcomes"] == {"rank-1": {"exited": 0}, "launcher": {"exited": 0}}


async def test_the_rank_gets_default_signals_back(attempt: Attempt) -> None:
    """Python ignores SIGPIPE, the shim blocks what it waits for; a rank must inherit neither."""
    script = 'grep -E "^Sig(Blk|Ign)" /proc/self/status'
    await attempt.launch(launcher("bash", "-c", shimmed(0, script)))

    await attempt.to_end()

    lines = attempt.files["rank-0.out"].decode().splitlines()
    masks = {name: int(mask, 16) for name, mask in map(str.split, lines)}
    assert masks["SigBlk:"] == 0
    assert masks["SigIgn:"] & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0


async def _torchrun(attempt: Attempt, tmp_path: Path, hold: bool) -> None:
    pytest.importorskip("torch")
    script = tmp_path / "rank.py"
    script.write_text(TORCHRUN_RANK)
    flag = tmp_path / "hold"
    if hold:
        flag.touch()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    await attempt.launch(
        launcher(
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--node-rank=0"),
            *("--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"),
            *("--no-python", "python3", "-I", "-S", "{agent}/process/rank_shim.py", "--"),
            *(sys.executable, "-u", str(script)),
            HOLD=str(flag),
            OMP_NUM_THREADS="1",
        ),
        grace_s=10.0,
    )


async def test_torchrun_works_under_the_shim(attempt: Attempt, tmp_path: Path) -> None:
    """Two ranks meet, and their words come home apart."""
    await _torchrun(attempt, tmp_path, hold=False)

    concluded = await attempt.to_end(90)

    good = {"exited": 0}
    assert concluded["outcomes"] == {"rank-0": good, "rank-1": good, "launcher": good}
    for number in range(2):
        assert b"sum 2\n" in attempt.files[f"rank-{number}.out"]


async def test_torchrun_with_a_killed_rank(attempt: Attempt, tmp_path: Path) -> None:
    """The killed rank is named; the other one's end, and torchrun's, are known as ours."""
    await _torchrun(attempt, tmp_path, hold=True)
    await attempt.follow(
        lambda a: all(b"last words" in a.files.get(f"rank-{n}.err", b"") for n in range(2)), 90
    )
    victim = attempt.only("rank-started", rank=1)["pid"]

    os.kill(victim, signal.SIGKILL)
    await attempt.follow(lambda a: a.seen("rank-exited", rank=1), 2)
    concluded = await attempt.to_end(30)

    first = attempt.only("rank-exited", rank=1)
    assert first["outcome"] == {"signalled": signal.SIGKILL}
    assert first["last_line"] == "last words of 1"
    assert first["by_us"] is False
    assert attempt.only("rank-exited", rank=0)["by_us"] is True
    assert attempt.only("process-exited", label="launcher")["by_us"] is True
    assert first["t"] <= attempt.only("rank-exited", rank=0)["t"]
    assert concluded["clean"] is True
    await eventually(lambda: running(attempt.names["run"]) == [], 2)


@pytest.mark.parametrize("wrapped", [True, False])
async def test_a_stopped_rank_need_not_be_waited_for(attempt: Attempt, wrapped: bool) -> None:
    """TERM reaches a rank that SIGSTOP froze: it goes on, hears it, and ends within the grace."""
    script = 'trap "echo told; exit 3" TERM; echo up; while :; do sleep 0.02; done'
    plain = shell(0, script)
    process = launcher("bash", "-c", f"exec env {shimmed(0, script)}") if wrapped else plain
    await attempt.launch(process, grace_s=60.0)
    await attempt.follow(lambda a: a.seen("rank-started") and "rank-0.out" in a.files)
    os.kill(attempt.only("rank-started")["pid"], signal.SIGSTOP)
    await attempt.ask("stop", grace_s=60.0)
    await attempt.to_end(within_s=10.0)
    assert attempt.files["rank-0.out"] == b"up\ntold\n"
    assert attempt.only("rank-exited")["outcome"] == {"exited": 3}


@pytest.mark.parametrize(
    "text,hint",
    [
        ("#!/bin/bash\r\necho hi\r\n", "names '/bin/bash\\r'; the line ends as in Windows"),
        ("#!/no/such/program -x\n", "names '/no/such/program -x')"),
        ("echo hi\n", "names no program: #!/bin/sh"),
    ],
)
def test_a_script_that_cannot_start_says_which_line_is_to_blame(
    tmp_path: Path, text: str, hint: str
) -> None:
    """The kernel's own word is about the interpreter, and reads as if the script were not there."""
    script = tmp_path / "job.sh"
    script.write_bytes(text.encode())
    script.chmod(0o755)
    start = "from orchestrator.node_agent.process import rank_shim as s; import sys; "
    start += "s.execute_program(sys.argv[1:], set())"
    done = subprocess.run(
        [sys.executable, "-c", start, str(script)], capture_output=True, text=True, check=False
    )

    assert done.returncode in (126, 127)
    assert hint in done.stderr
